"""Time softmax, layer norm and division in ONNX Runtime: integer nodes, float islands, and the float operation alone.

    python tests/benchmarks/bench_nonlinear.py

The shapes are those of a ViT-B/16 at 224x224. Milliseconds of the processor in one thread, medians of runs in turn.
Integers and islands quantize the input first and dequantize the output last, which float does not have to: of the
softmax that is 0.36 ms, of the norms 0.08. ONNX Runtime 1.32 on an AVX512-VNNI machine that others used as well:

    softmax                 integer   2.08    float_island   1.10    float   0.71
    log_softmax             integer   2.59    float_island   1.11    float   0.42
    layer norm              integer   0.71    float_island   0.39    float   0.18
    RMS norm                integer   0.51    float_island   0.46    float   0.24
    layer norm of channels  integer   0.79    float_island   0.64    float   0.48
    divide                  integer   1.16    float_island   0.67    float   0.38

Factors are chosen for int32: in int64 the division of a softmax alone takes 1.6 ms. `bench_transformers.py` tells what
all of it makes of whole networks.
"""

import statistics
import tempfile
import time
from pathlib import Path

import torch

from qat.emitters.onnxruntime import emit, emit_float, open_session, run_session
from qat.emitters.options import ExportOptions
from qat.integer.builder import ProgramBuilder
from qat.integer.interpreter import dequantize
from qat.integer.values import Grid, float32

SCORES, VALUES, SHARES = (
    Grid(float32(0.1), 128, 0, 255),
    Grid(float32(0.03), 128, 0, 255),
    Grid(float32(1 / 255), 0, 0, 255),
)
HEADS, TOKENS, WIDTH = 12, 197, 768
REPEATS = 100
#: Operation -> shapes of its inputs without the batch, and what writes it.
CASES = {
    "softmax": ([(HEADS, TOKENS, TOKENS)], lambda b, x: b.softmax("y", x, 3, SHARES)),
    "log_softmax": ([(HEADS, TOKENS, TOKENS)], lambda b, x: b.log_softmax("y", x, 3, Grid(float32(0.05), 255, 0, 255))),
    "layer norm": ([(TOKENS, WIDTH)], lambda b, x: _norm(b, x)),
    "RMS norm": ([(TOKENS, WIDTH)], lambda b, x: _norm(b, x, centered=False)),
    "layer norm of channels": ([(WIDTH, TOKENS)], lambda b, x: b.normalize("y", x, (1,), VALUES)),
    "divide": ([(TOKENS, WIDTH)] * 2, lambda b, x, z: b.divide("y", x, z, VALUES)),
}


def _norm(builder: ProgramBuilder, x: str, **settings) -> str:
    gain = 1 + torch.randn(WIDTH, generator=torch.Generator().manual_seed(0)) / 4
    return builder.normalize("y", x, (2,), VALUES, gain=gain, shift=gain / 8, **settings)


def main() -> None:
    """Print one line per operation."""
    generator = torch.Generator().manual_seed(0)
    for name, (shapes, write) in CASES.items():
        builder = ProgramBuilder()
        sources = [builder.input(f"x{index}", shape, SCORES) for index, shape in enumerate(shapes)]
        builder.output("out", write(builder, *sources))
        program = builder.build()
        inputs = {}
        for source, shape in zip(sources, shapes, strict=True):
            codes = (torch.randn(1, *shape, generator=generator) * 30 + 128).round().clamp(0, 255)
            inputs[source] = dequantize(codes.to(torch.uint8), SCORES)
        times = _times(program, inputs)
        print(f"{name:24}" + "".join(f"{kind} {value:6.2f}    " for kind, value in times.items()))


def _times(program, inputs) -> dict[str, float]:
    """Median milliseconds of each form."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        sessions = {}
        for nonlinear in ("integer", "float_island"):
            emit(program, path, ExportOptions(nonlinear))
            sessions[nonlinear] = open_session(path)
        emit_float(program, path)
        sessions["float"] = open_session(path)
    times: dict[str, list[float]] = {kind: [] for kind in sessions}
    for _ in range(REPEATS):
        for kind, session in sessions.items():
            start = time.process_time()
            run_session(session, inputs)
            times[kind].append((time.process_time() - start) * 1000)
    return {kind: statistics.median(values) for kind, values in times.items()}


if __name__ == "__main__":
    main()
