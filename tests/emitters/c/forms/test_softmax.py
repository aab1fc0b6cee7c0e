"""Softmax and its logarithm in C."""

import pytest
import torch

from qat.integer.operations import MASK_GRID
from qat.integer.values import Grid, float32

SOURCES = [
    Grid(float32(0.1), 128, 0, 255),
    Grid(float32(0.021), -5, -128, 127),
    Grid(float32(0.3), 5, 3, 9),
    Grid(float32(0.001), 0, -900, 900),
]
SHARES = [
    Grid(float32(1 / 255), 0, 0, 255),
    Grid(float32(0.3 / 255), -128, -128, 127),
    Grid(float32(0.01), 5, 2, 12),
    Grid(float32(1 / 60_000), 0, 0, 60_000),
]
LOGARITHMS = [Grid(float32(0.03), 140, 0, 255), Grid(float32(0.2), -3, -128, 127), Grid(float32(0.001), 0, -30_000, 0)]
SHAPES = [(1,), (197,), (3, 5, 7), (2, 1500)]


@pytest.mark.parametrize("source", SOURCES)
def test_every_row(assert_equal_in_both, source):
    def write(builder, *sources):
        for place, x in enumerate(sources):
            for dim in range(1, len(builder.shape(x)) + 1):
                for number, target in enumerate(SHARES):
                    yield builder.softmax(f"softmax{place}{dim}{number}", x, dim, target)
                for number, target in enumerate(LOGARITHMS):
                    yield builder.log_softmax(f"log{place}{dim}{number}", x, dim, target)

    assert_equal_in_both(lambda builder, *sources: list(write(builder, *sources)), SHAPES, [source] * len(SHAPES))


@pytest.mark.parametrize("source", SOURCES)
def test_what_a_mask_leaves_out(assert_equal_in_both, source):
    def write(builder, x, *masks):
        for place, mask in enumerate(masks):
            for number, target in enumerate(SHARES):
                yield builder.softmax(f"y{place}{number}", x, 4, target, mask=mask)

    shapes = [(2, 3, 4, 4), (2, 3, 4, 4), (2, 1, 1, 4), (1, 1, 4, 4)]
    assert_equal_in_both(lambda builder, *sources: list(write(builder, *sources)), shapes, [source, *[MASK_GRID] * 3])


def test_rows_in_which_nothing_takes_part_are_zero(assert_equal_in_both):
    mask = torch.ones(1, 6, 6).tril(-1)

    def write(builder, x):
        return builder.softmax("y", x, 3, SHARES[2], mask=builder.constant("mask", mask, MASK_GRID))

    program, _ = assert_equal_in_both(write, [(2, 6, 6)], [SOURCES[0]])
    assert (program(torch.randn(1, 2, 6, 6))["y0"][:, :, 0] == 0).all()
