"""Codes that are chosen or mirrored in C, and where the largest lie: equals in the order of the interpreter."""

import pytest
import torch

from qat.integer.operations import MASK_GRID
from qat.integer.values import Grid, IndexRange, float32

GRIDS = [
    Grid(float32(0.02), 100, 0, 255),
    Grid(float32(0.021), -5, -128, 127),
    Grid(float32(0.3), 2, 0, 3),
    Grid(1.0, 4, 0, 60_000),
    IndexRange(5),
]


@pytest.mark.parametrize("source", GRIDS)
def test_the_most_extreme_codes_and_where_they_lie(assert_equal_in_both, source):
    def write(builder, x):
        turned = builder.transpose("turned", x, (0, 3, 1, 2))
        names = [builder.arg_max("a", x, 2), builder.arg_max("b", x, 1, keepdim=True), builder.arg_max("c", turned, 3)]
        names += builder.top_k("d", x, 3, 4)
        names += builder.top_k("e", x, 2, 6, largest=False)
        names += builder.top_k("f", turned, 1, 1)
        return names

    assert_equal_in_both(write, [(4, 6, 7)], [source])


@pytest.mark.parametrize("source", [*GRIDS[:4], Grid(0.5, 4, 3, 9)])
def test_codes_are_mirrored(assert_equal_in_both, source):
    assert_equal_in_both(lambda b, x: b.negate("n", x), [(16, 16)], [source])


@pytest.mark.parametrize("source", GRIDS)
def test_masks_choose_among_values_and_constants(assert_equal_in_both, source):
    codes = torch.tensor([1, 3, 2, 3, 0, 1, 1])
    mask = torch.tensor([[0], [1], [1], [0], [0], [1]])

    def write(builder, m, x, y):
        constant = builder.constant("k", codes.reshape(1, 7), source)
        return [
            builder.select("both", m, x, y),
            builder.select("first", m, x, constant),
            builder.select("second", m, constant, y),
            builder.select("constant mask", builder.constant("m", mask, MASK_GRID), x, y),
        ]

    assert_equal_in_both(write, [(6, 1), (6, 7), (6, 7)], [MASK_GRID, source, source])
