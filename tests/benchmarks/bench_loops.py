"""Time an LSTM in ONNX Runtime: as one loop, as cells that a network calls itself, step by step, and in float.

    python tests/benchmarks/bench_loops.py

50 steps of 128 hidden and 64 input features, and a linear layer behind every step. Nodes of the file, those in a loop's
step included; milliseconds to load it; and milliseconds of the processor in one thread for 1, 16 and 64 samples,
medians of runs in turn. "float, step by step" is the network that reports time beside the integers; "float operator"
ONNX's own LSTM, whose steps are one kernel. ONNX Runtime 1.32.0 on an AVX512-VNNI machine that others used as well:

    loop                    50 nodes   load    5.5 ms   run  1:   0.94   16:   2.52   64:   7.95 ms
    cells                 1754 nodes   load  163.6 ms   run  1:   1.60   16:   3.93   64:   8.13 ms
    float, step by step     57 nodes   load    5.3 ms   run  1:   1.59   16:   6.59   64:  22.76 ms
    float operator           5 nodes   load    1.0 ms   run  1:   0.26   16:   1.65   64:   6.70 ms

A Loop node in the place of Scan takes as long.
"""

import statistics
import tempfile
import time
from pathlib import Path

import numpy
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import qat
from qat.emitters.onnxruntime import emit, emit_float, open_session, run_session
from qat.emitters.onnxruntime.graph import graphs_of

STEPS, FEATURES, HIDDEN, OUTPUTS = 50, 64, 128, 10
BATCHES = (1, 16, 64)
LOADS, REPEATS = 5, 60


class Layer(nn.Module):
    """`nn.LSTM`."""

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.LSTM(FEATURES, HIDDEN, batch_first=True), nn.Linear(HIDDEN, OUTPUTS)

    def forward(self, x):
        return self.head(self.layer(x)[0])


class Cells(nn.Module):
    """`nn.LSTMCell` in a loop of the network's own."""

    def __init__(self):
        super().__init__()
        self.cell, self.head = nn.LSTMCell(FEATURES, HIDDEN), nn.Linear(HIDDEN, OUTPUTS)

    def forward(self, x):
        state, outputs = None, []
        for step in x.unbind(1):
            state = self.cell(step, state)
            outputs.append(state[0])
        return self.head(torch.stack(outputs, 1))


def main() -> None:
    """Print one line per file."""
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: Path(folder) / f"{name}.onnx" for name in ("loop", "cells", "float, step by step")}
        for name, network in (("loop", Layer()), ("cells", Cells())):
            program = converted(network)
            emit(program, paths[name])
            if name == "loop":
                emit_float(program, paths["float, step by step"])
        paths["float operator"] = Path(folder) / "operator.onnx"
        onnx.save(float_operator(), paths["float operator"])
        times = run_times({name: open_session(path) for name, path in paths.items()})
        for name, path in paths.items():
            runs = "   ".join(f"{batch:2}: {ms:6.2f}" for batch, ms in zip(BATCHES, times[name], strict=True))
            nodes = count(onnx.load(path).graph)
            print(f"{name:20} {nodes:5} nodes   load {load_time(path):6.1f} ms   run {runs} ms")


def converted(network: nn.Module):
    """The program of a network that saw one batch."""
    torch.manual_seed(0)
    x = torch.randn(8, STEPS, FEATURES)
    qat.prepare(network, x)
    network(x)
    return qat.convert(network.eval())


def float_operator() -> onnx.ModelProto:
    """The same network in float32 with ONNX's operator, its weights random."""
    generator = numpy.random.default_rng(0)
    shapes = {
        "w": (1, 4 * HIDDEN, FEATURES), "r": (1, 4 * HIDDEN, HIDDEN), "b": (1, 8 * HIDDEN), "head": (HIDDEN, OUTPUTS),
    }  # fmt: skip
    weights = [
        numpy_helper.from_array(generator.standard_normal(shape).astype(numpy.float32) / 10, name)
        for name, shape in shapes.items()
    ]
    weights.append(numpy_helper.from_array(numpy.array([1]), "directions"))
    nodes = [
        helper.make_node("Transpose", ["x"], ["steps"], perm=[1, 0, 2]),
        helper.make_node("LSTM", ["steps", "w", "r", "b"], ["all"], hidden_size=HIDDEN),
        helper.make_node("Squeeze", ["all", "directions"], ["states"]),
        helper.make_node("Transpose", ["states"], ["hidden"], perm=[1, 0, 2]),
        helper.make_node("MatMul", ["hidden", "head"], ["output"]),
    ]
    edges = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", STEPS, width])]
        for name, width in (("x", FEATURES), ("output", OUTPUTS))
    ]
    graph = helper.make_graph(nodes, "lstm", *edges, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def count(graph: onnx.GraphProto) -> int:
    """Nodes of a graph and of the graphs inside of it."""
    return len(graph.node) + sum(count(inner) for node in graph.node for inner in graphs_of(node))


def load_time(path: Path) -> float:
    """Median milliseconds of the processor to open a session."""
    times = []
    for _ in range(LOADS):
        start = time.process_time()
        open_session(path)
        times.append((time.process_time() - start) * 1000)
    return statistics.median(times)


def run_times(sessions: dict) -> dict[str, list[float]]:
    """Median milliseconds of each session, for each of `BATCHES`."""
    medians: dict[str, list[float]] = {name: [] for name in sessions}
    for batch in BATCHES:
        inputs = {"x": torch.randn(batch, STEPS, FEATURES)}
        times: dict[str, list[float]] = {name: [] for name in sessions}
        for _ in range(REPEATS):
            for name, session in sessions.items():
                start = time.process_time()
                run_session(session, inputs)
                times[name].append((time.process_time() - start) * 1000)
        for name, measured in times.items():
            medians[name].append(statistics.median(measured))
    return medians


if __name__ == "__main__":
    main()
