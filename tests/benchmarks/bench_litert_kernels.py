"""What LiteRT's kernels take for narrow weights and for functions of one value, in one thread, in milliseconds.

    python tests/benchmarks/bench_litert_kernels.py

The first table is of convolutions of 3 x 3: as CONV_2D of int8 weights, as CONV_2D of int4 weights, which rounds
otherwise than the program, and as the product of int4 weights with windows side by side that the emitter writes. The
second is of 262,144 codes, by a function's own kernel or by a look-up.
"""

import statistics
import time

import numpy
import torch
from ai_edge_litert.interpreter import Interpreter

from qat.emitters.litert import build
from qat.emitters.litert.forms import packed, tables
from qat.emitters.litert.model import Model, Scaling, schema
from qat.emitters.options import ExportOptions
from qat.integer.builder import ProgramBuilder
from qat.integer.semantics import for_runtime
from qat.integer.values import Grid, Weight, WeightGrid, float32

REPEATS = 50
BYTE = Grid(float32(0.02), 128, 0, 255)
CONVOLUTIONS = ((32, 16), (16, 32), (8, 64), (32, 64))
FUNCTIONS = ("sigmoid", "tanh", "gelu", "elu", "hardswish")


def milliseconds(content: bytes) -> float:
    """Median time of one run."""
    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        interpreter.invoke()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1000


def convolution(size: int, channels: int, bytes_of_slice: int) -> bytes:
    """A program of one convolution with codes at its edges."""
    codes = torch.randint(-8, 8, (channels, channels, 3, 3), dtype=torch.int8)
    weight = Weight(codes, WeightGrid(4, 16), torch.full((channels,), 0.001))
    builder = ProgramBuilder()
    x = builder.input("x", (channels, size, size), BYTE)
    builder.output("y", builder.conv("c", x, weight, BYTE, padding=((1, 1), (1, 1))))
    program = for_runtime(builder.build().with_integer_edges("*"), "litert")
    kept, packed._BYTES_OF_SLICE = packed._BYTES_OF_SLICE, bytes_of_slice
    try:
        return build(program, ExportOptions(channels_last=True))
    finally:
        packed._BYTES_OF_SLICE = kept


def unpacked_kernel(size: int, channels: int) -> bytes:
    """CONV_2D of int4 weights."""
    model, scaling = Model(), Scaling((0.02,), 0)
    x, y = (model.tensor(name, (1, size, size, channels), numpy.int8, scaling) for name in "xy")
    numbers = numpy.random.default_rng(0).integers(-8, 8, (channels, 3, 3, channels))
    weight = model.packed_constant("w", numbers, 4, Scaling((0.01,) * channels))
    bias = model.constant("b", numpy.zeros(channels, numpy.int32), Scaling((0.0002,) * channels))
    options = schema.Conv2DOptionsT()
    options.strideH = options.strideW = options.dilationHFactor = options.dilationWFactor = 1
    model.operator("CONV_2D", [x, weight, bias], [y], options)
    return model.to_bytes({"x": x}, {"y": y}, "")


def function(name: str) -> bytes:
    """One operator of a function."""
    model, kind = Model(), tables.REAL_KERNELS[name]
    x, y = (model.tensor(edge, (1, 64, 64, 64), numpy.int8, Scaling((0.05,), 0)) for edge in "xy")
    model.operator(kind[0], [x], [y], kind[1]())
    return model.to_bytes({"x": x}, {"y": y}, "")


def look_up() -> bytes:
    """A table of no known function."""
    builder = ProgramBuilder()
    codes = torch.randint(0, 256, (256,), dtype=torch.uint8)
    builder.output("y", builder.table("t", builder.input("x", (64, 64, 64), BYTE), codes, BYTE))
    return build(builder.build().with_integer_edges("*"), ExportOptions())


def main() -> None:
    """Print both tables."""
    torch.manual_seed(0)
    print(f"{'input':>14}{'int8':>8}{'int4':>8}{'product':>9}   bytes of int8, of the product")
    for size, channels in CONVOLUTIONS:
        plain, product = (convolution(size, channels, cost) for cost in (10**9, 0))
        times = [milliseconds(content) for content in (plain, unpacked_kernel(size, channels), product)]
        print(
            f"{f'{size}x{size}x{channels}':>14}{times[0]:8.3f}{times[1]:8.3f}{times[2]:9.3f}   {len(plain):,}, "
            f"{len(product):,}"
        )
    for name in FUNCTIONS:
        print(f"{name:>14}{milliseconds(function(name)):8.3f}")
    print(f"{'look-up':>14}{milliseconds(look_up()):8.3f}")


if __name__ == "__main__":
    main()
