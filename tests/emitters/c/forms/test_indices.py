"""Arithmetic of indices in C."""

import pytest
import torch

from qat.integer.values import Grid, IndexRange, Weight, WeightGrid, float32


def test_positions_are_counted_and_choose_rows(assert_equal_in_both):
    rows = torch.randint(-8, 8, (9, 4), generator=torch.Generator().manual_seed(0)).to(torch.int8)
    weight = Weight(rows, WeightGrid(4, 16), torch.full((9,), 0.25))

    def write(builder, ids):
        known = builder.index_table("known", ids, [0, 1, 1, 1, 1])
        counted = builder.index_product("counted", builder.cumulative_sum("sums", known, 1), known)
        one = builder.constant("one", torch.tensor([1]), IndexRange(2))
        return builder.embedding("rows", builder.index_sum("positions", counted, one), weight), known

    assert_equal_in_both(write, [(7,)], [IndexRange(5)])


def test_sums_along_every_dimension(assert_equal_in_both):
    def write(builder, x):
        turned = builder.transpose("turned", x, (0, 3, 1, 2))
        return [builder.cumulative_sum(f"{name}{dim}", name, dim) for name in (x, turned) for dim in (1, 2, 3)]

    assert_equal_in_both(write, [(2, 3, 4)], [IndexRange(1000)])


@pytest.mark.parametrize(
    "source", [Grid(float32(0.02), 100, 0, 255), Grid(float32(0.02), -5, -128, 127), IndexRange(9)]
)
@pytest.mark.parametrize(("shape", "dim"), [((5, 1, 7), 1), ((5, 6, 7), 1), ((2, 9, 3), 2), ((5, 6, 2), 3)])
def test_entries_are_gathered(assert_equal_in_both, source, shape, dim):
    assert_equal_in_both(
        lambda b, x, places: b.gather("g", x, places, dim), [(5, 6, 7), shape], [source, IndexRange((5, 6, 7)[dim - 1])]
    )
