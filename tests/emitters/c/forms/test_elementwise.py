"""Sums, products and other grids in C, of operands that broadcast."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_programs import random_weight

from qat.emitters import c
from qat.integer.builder import ProgramBuilder
from qat.integer.values import Grid, float32

UNSIGNED = Grid(float32(0.02), 100, 0, 255)
SIGNED = Grid(float32(0.021), -5, -128, 127)
NARROW = Grid(float32(0.3), 2, 0, 15)
SIGNED_NARROW = Grid(float32(0.25), 1, -7, 7)
WIDE = Grid(float32(0.02 / 300), 30_000, 0, 65_535)
WIDE_SIGNED = Grid(float32(0.03 / 200), 11, -32_767, 32_767)
GRIDS = [UNSIGNED, SIGNED, NARROW, SIGNED_NARROW]


@pytest.mark.parametrize("first", [*GRIDS, WIDE, WIDE_SIGNED])
def test_sums_and_products_of_every_pair_of_grids(assert_equal_in_both, first):
    seconds = GRIDS if first in (WIDE, WIDE_SIGNED) else [*GRIDS, WIDE_SIGNED]

    def write(builder, x, *others):
        for place, other in enumerate(others):
            for name, target in (("u", UNSIGNED), ("n", SIGNED_NARROW), ("w", WIDE)):
                yield builder.add(f"add {name}{place}", x, other, target)
                yield builder.mul(f"mul {name}{place}", x, other, target, clamp=(target.zero_point, target.quant_max))

    shapes = [(3, 5, 7)] * (1 + len(seconds))
    assert_equal_in_both(lambda builder, *sources: list(write(builder, *sources)), shapes, [first, *seconds])


def test_operands_broadcast_and_may_be_constants(assert_equal_in_both):
    shapes = [(4, 1, 1), (1, 1, 1), (4, 5, 7), (1, 5, 1)]

    def write(builder, x, *others):
        for place, (shape, other) in enumerate(zip(shapes, others, strict=True)):
            codes = torch.arange(math.prod(shape)).reshape(shape) % 16
            constant = builder.constant(f"k{place}", codes, NARROW)
            first = builder.add(f"a{place}", x, constant, UNSIGNED)
            yield builder.mul(f"b{place}", constant, first, SIGNED)
            yield builder.add(f"c{place}", other, x, UNSIGNED)
            yield builder.mul(f"d{place}", x, other, UNSIGNED)

    assert_equal_in_both(
        lambda builder, *sources: list(write(builder, *sources)), [(4, 5, 7), *shapes], [UNSIGNED, *GRIDS]
    )


def test_operands_in_other_orders(assert_equal_in_both):
    """A convolution leaves channels last, an input is plain, a transposed value neither."""

    def write(builder, x, y):
        convolved = builder.conv("conv", x, random_weight((4, 4, 1, 1)), UNSIGNED)
        turned = builder.transpose("turned", y, (0, 3, 2, 1))
        return builder.add("a", convolved, turned, UNSIGNED), builder.mul("m", turned, convolved, UNSIGNED)

    assert_equal_in_both(write, [(4, 5, 6), (6, 5, 4)], [SIGNED, UNSIGNED])


@pytest.mark.parametrize("source", [*GRIDS, WIDE, WIDE_SIGNED])
def test_other_grids(assert_equal_in_both, source):
    def write(builder, x):
        for place, target in enumerate([*GRIDS, WIDE]):
            for number, factor in enumerate((1.0, -1.0, 0.37, -2.5)):
                yield builder.requantize(f"r{place}{number}", x, target, factor=factor)
        yield builder.requantize("limited", x, source, clamp=(source.zero_point, source.quant_max - 1))

    assert_equal_in_both(lambda builder, x: list(write(builder, x)), [(5, 60)], [source])


def test_half_the_step_is_a_table_of_ties(assert_equal_in_both):
    source, target = Grid(0.5, 3, 0, 255), Grid(1.0, 7, 0, 255)
    _, path = assert_equal_in_both(lambda b, x: b.requantize("r", x, target), [(300,)], [source])
    assert "r_table[256]" in path.read_text()


@settings(max_examples=4, deadline=None, derandomize=True)
@given(st.data())
@pytest.mark.parametrize("kind", ["add", "mul"])
def test_all_pairs_of_codes_for_random_scales(tmp_path_factory, kind, data):
    draw = data.draw
    scales = [float32(draw(st.one_of(st.floats(0.05, 1.0), st.sampled_from([0.25, 0.5])))) for _ in range(3)]
    grids = [Grid(scale, draw(st.integers(0, 255)), 0, 255) for scale in scales]
    builder = ProgramBuilder()
    x, y = builder.input("x", (256, 1), grids[0]), builder.input("y", (1, 256), grids[1])
    builder.output("z", getattr(builder, kind)("op", x, y, grids[2]))
    program = builder.build().with_integer_edges("*")
    path = tmp_path_factory.mktemp("pairs") / "network.c"
    c.emit(program, path)
    codes = torch.arange(256, dtype=torch.uint8)
    inputs = {"x": codes.reshape(1, 256, 1), "y": codes.reshape(1, 1, 256)}
    assert torch.equal(c.run_session(c.open_session(path, ("-O1",)), inputs)["z"], program(inputs))
