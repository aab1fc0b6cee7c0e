"""How the cost of recording, planning, converting and exporting grows with the number of operations.

    python tests/benchmarks/bench_preparation.py [DEPTH ...]

A vision transformer (`transformers.ViTForImageClassification`, width 64, 16 patches) of 3, 6, 12 and 24 layers. Times
are seconds of the processor in one thread; beside each, milliseconds for one recorded call, which stay the same where
the cost is linear.
"""

import sys
import tempfile
import time
import warnings
from pathlib import Path

import torch
import transformers

import qat
from qat.inject.inputs import bind_examples
from qat.inject.plan import make_plan
from qat.inject.record import record
from qat.spec import QuantConfig
from qat.targets import target_named

DEPTHS = (3, 6, 12, 24)


def main() -> None:
    """One line for each depth."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    depths = tuple(map(int, sys.argv[1:])) or DEPTHS
    measure(2)  # what is imported and compiled once
    print(f"{'depth':>5} {'calls':>6}" + "".join(f"{stage:>22}" for stage in ("record", "plan", "convert", "export")))
    for depth in depths:
        calls, seconds = measure(depth)
        cells = "".join(f"{second:>10.2f} s {1000 * second / calls:>6.2f} ms" for second in seconds)
        print(f"{depth:>5} {calls:>6} {cells}", flush=True)


def measure(depth: int) -> tuple[int, list[float]]:
    """(recorded calls, seconds of recording, planning, converting and exporting) of a transformer of `depth` layers."""
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=64, num_hidden_layers=depth, num_attention_heads=4, intermediate_size=128, image_size=32,
        patch_size=8, num_labels=10,
    )  # fmt: skip
    network = transformers.ViTForImageClassification(config)
    images = torch.randn(2, 3, 32, 32)
    args, kwargs = bind_examples(network, images)
    seconds = []
    recording = _timed(seconds, lambda: record(network, args, kwargs))
    _timed(seconds, lambda: make_plan(recording, QuantConfig.parse("w8a8"), target_named("onnxruntime")))
    qat.prepare(network, images)
    network(images)
    network.eval()
    program = _timed(seconds, lambda: qat.convert(network))
    with tempfile.TemporaryDirectory() as folder:
        _timed(seconds, lambda: qat.export(program, Path(folder) / "model.onnx"))
    return len(recording.calls), seconds


def _timed(seconds: list[float], run):
    start = time.process_time()
    result = run()
    seconds.append(time.process_time() - start)
    return result


if __name__ == "__main__":
    main()
