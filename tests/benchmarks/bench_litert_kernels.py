"""What LiteRT's kernels take for narrow weights and for functions of one value, in one thread, in milliseconds.

    python tests/benchmarks/bench_litert_kernels.py

The first table is of convolutions of 3 x 3: as CONV_2D of int8 weights, as CONV_2D of int4 weights, which rounds
otherwise than the program, and as the product of int4 weights with windows side by side that the emitter writes. The
second is of means over all places, as depthwise convolutions with ones and as matrix products; the third of first
layers, over columns and over strips of columns. The last is of 262,144 codes, by a function's own kernel or by a
look-up.
"""

import statistics
import time
from unittest.mock import patch

import numpy
import torch
from ai_edge_litert.interpreter import Interpreter

from qat.emitters.litert import build
from qat.emitters.litert.forms import packed, sums, tables, windows
from qat.emitters.litert.model import Model, Scaling, schema
from qat.emitters.options import ExportOptions
from qat.integer.builder import ProgramBuilder
from qat.integer.semantics import for_runtime
from qat.integer.values import Grid, Weight, WeightGrid, float32

REPEATS = 50
BYTE = Grid(float32(0.02), 128, 0, 255)
CONVOLUTIONS = ((32, 16), (16, 32), (8, 64), (32, 64))
MEANS = ((25, 5, 64), (7, 7, 1280), (5, 5, 64))
#: (height, width, channels, outputs, kernel, padding) of convolutions with stride 2.
FIRST_LAYERS = (
    (49, 10, 1, 64, (10, 4), ((5, 5), (1, 1))),
    (224, 224, 3, 32, (3, 3), ((1, 1), (1, 1))),
    (224, 224, 3, 64, (7, 7), ((3, 3), (3, 3))),
)
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
    with patch.object(packed, "_BYTES_OF_SLICE", bytes_of_slice):
        return written(builder)


def written(builder: ProgramBuilder) -> bytes:
    """The file of a program, with codes at its edges and channels last."""
    program = for_runtime(builder.build().with_integer_edges("*"), "litert")
    return build(program, ExportOptions(channels_last=True))


def mean(height: int, width: int, channels: int, largest_depthwise: int) -> bytes:
    """A program of one mean over all places."""
    builder = ProgramBuilder()
    builder.output("y", builder.mean("m", builder.input("x", (channels, height, width), BYTE), (2, 3), BYTE))
    with patch.object(sums, "_LARGEST_DEPTHWISE", largest_depthwise):
        return written(builder)


def first_layer(height, width, channels, outputs, kernel, padding) -> bytes:
    """A program of one convolution with stride 2."""
    codes = torch.randint(-127, 128, (outputs, channels, *kernel), dtype=torch.int8)
    made = Weight(codes, WeightGrid(8), torch.full((outputs,), 0.001))
    builder = ProgramBuilder()
    x = builder.input("x", (channels, height, width), BYTE)
    builder.output("y", builder.conv("c", x, made, BYTE, padding=padding, stride=(2, 2)))
    return written(builder)


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
    print(f"{'mean of':>14}{'depthw.':>8}{'product':>9}")
    for sizes in MEANS:
        times = [milliseconds(mean(*sizes, largest)) for largest in (10**9, 0)]
        print(f"{'x'.join(map(str, sizes)):>14}{times[0]:8.3f}{times[1]:9.3f}")
    print(f"{'first layer':>14}{'columns':>8}{'strips':>9}")
    for layer in FIRST_LAYERS:
        with patch.object(windows.Strip, "of", lambda *_: None):
            columns = milliseconds(first_layer(*layer))
        print(f"{'x'.join(map(str, layer[:3])):>14}{columns:8.3f}{milliseconds(first_layer(*layer)):9.3f}")
    for name in FUNCTIONS:
        print(f"{name:>14}{milliseconds(function(name)):8.3f}")
    print(f"{'look-up':>14}{milliseconds(look_up()):8.3f}")


if __name__ == "__main__":
    main()
