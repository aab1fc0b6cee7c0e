"""A program of every kind of operation, for tests and for commands."""

import math

import torch

from qat.integer.builder import ProgramBuilder
from qat.integer.operations import MASK_GRID
from qat.integer.program import IntegerProgram
from qat.integer.values import Grid, IndexRange, Weight, WeightGrid, float32


def program_of_every_operation(source: Grid) -> IntegerProgram:
    """All kinds of operations in one program, from a grid to another."""

    def weight(bits, *shape):
        half = 2 ** (bits - 1)
        codes = torch.arange(math.prod(shape)).remainder(2 * half).sub(half).to(torch.int8).reshape(shape)
        return Weight(codes, WeightGrid(bits), torch.full(shape[:1], 0.7 / (half * codes[0].numel() ** 0.5)))

    fine, relu = Grid(float32(0.02), 128, 0, 255), Grid(float32(0.02), 0, 0, 255)
    builder = ProgramBuilder()
    y = builder.conv("c", builder.input("x", (4, 8, 8), source), weight(4, 8, 4, 3, 3), relu, padding=((1, 1), (1, 1)))
    z = builder.conv("depthwise", y, weight(8, 8, 1, 3, 3), fine, padding=((1, 1), (1, 1)), groups=8, clamp=(128, 200))
    y = builder.add("sum", builder.add("add", y, z, fine), z, Grid(float32(0.03), -3, -128, 127))
    y = builder.mul("mul", y, builder.constant("k", torch.tensor([[[3]]]), Grid(0.25, 0, 0, 15)), fine)
    y = builder.concatenate("join", (y, builder.requantize("r", y, fine, factor=-0.5)), 1)
    y = builder.requantize("clamp", y, fine, clamp=(20, 230))
    y = builder.slice("cut", builder.pad("pad", y, ((0, 0), (1, 0), (0, 1))), (0, 1, 0), (16, 9, 8))
    y = builder.average_pool("average", builder.max_pool("pool", y, (2, 2)), (2, 2), fine, stride=(1, 1))
    y = builder.linear("rows", builder.transpose("turn", y, (0, 2, 3, 1)), weight(2, 6, 16), fine)
    builder.output("most", builder.max("max", y, (1, 2)))
    z = builder.matmul("product", y, builder.transpose("turned", y, (0, 1, 3, 2)), fine, factor=0.25)
    z = builder.table("table", z, torch.arange(255, -1, -1).to(torch.uint8), fine)
    z = builder.expand(
        "expand", builder.take("take", builder.sum("sums", z, (2,), fine, keepdim=True), 1, [2, 0]), (2, 2, 3)
    )
    mask = builder.table(
        "mask", builder.input("ids", (2,), IndexRange(4)), torch.tensor([0, 1, 1, 0]).byte(), MASK_GRID
    )
    z = builder.select(
        "select", builder.reshape("masks", mask, (2, 1, 1)), z, builder.requantize("s", z, fine, factor=2)
    )
    shares = builder.softmax("softmax", builder.normalize("normalize", z, (2, 3), fine), 3, relu)
    z = builder.add("more", builder.divide("divide", z, builder.log_softmax("log", z, 3, fine), fine), shares, fine)
    z = builder.requantize("signed", builder.negate("negate", z), Grid(float32(0.03), 0, -128, 127))
    known = builder.index_table("known", "ids", [0, 1, 1, 3])
    places = builder.index_sum(
        "places", builder.index_product("squares", known, known), builder.cumulative_sum("counts", known, 1)
    )
    rows = builder.embedding("rows of ids", builder.index_table("few", places, [0, 1, 2, 3] * 4), weight(8, 4, 6))
    builder.output("chosen", builder.gather("chosen", rows, builder.reshape("r3", known, (2, 1)), 2))
    builder.output("embedded", builder.add("embedded", builder.reshape("r2", rows, (2, 2, 3)), z, fine))
    builder.output("most likely", builder.arg_max("argmax", z, 3))
    for name in builder.top_k("top", z, 2, 1):
        builder.output(f"out {name}", name)
    y = builder.mean("mean", y, (1,), fine)
    steps = ProgramBuilder()
    state = steps.add("next", steps.input("step", (18,), fine), steps.input("before", (18,), fine), fine)
    steps.output("state", state)
    steps.output("output", state)
    body = steps.build("tuple").with_integer_edges("*")
    first = builder.constant("first", torch.full((18,), 120), fine)
    y = builder.loop("loop", (builder.reshape("sequence", y, (1, 18)),), (first,), body)[0]
    builder.output("logits", builder.linear("last", builder.reshape("flat", y, (18,)), weight(8, 3, 18), fine))
    return builder.build("dict")
