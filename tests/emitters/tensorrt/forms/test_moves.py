"""Moves and choices as QDQ nodes: equal codes in ONNX Runtime with optimizations off and in the interpreter."""

import pytest
import torch

from qat.emitters.tensorrt import float_ops
from qat.integer.operations import MASK_GRID
from qat.integer.values import Grid, IndexRange, Weight, WeightGrid, float32

SYMMETRIC = Grid(float32(0.021), 0, -127, 127)
NARROW = Grid(float32(0.3), 0, 0, 15)
INDICES = IndexRange(5)


@pytest.mark.parametrize("source", [SYMMETRIC, NARROW, INDICES])
def test_moves(assert_equal_in_both, source):
    cases = [
        lambda b, x: b.take("t", x, 1, [3, 0, 0, 2]),
        lambda b, x: b.expand("e", b.reshape("r", x, (4, 1, 42)), (4, 3, 42)),
        lambda b, x: b.concatenate("c", (x, x), 2),
        lambda b, x: b.transpose("t", x, (0, 3, 1, 2)),
        lambda b, x: b.slice("s", x, (1, 0, 2), (4, 6, 7), (1, 2, 3)),
        lambda b, x: b.pad("d", x, ((0, 1), (2, 0), (1, 1))),
        lambda b, x: b.max("m", x, (2, 3)),
        lambda b, x: b.arg_max("a", x, 2),
        lambda b, x: b.arg_max("a", x, 1, keepdim=True),
        lambda b, x: b.top_k("k", x, 3, 4),
        lambda b, x: b.top_k("k", x, 2, 6, largest=False),
    ]
    for case in cases:
        assert_equal_in_both(case, [(4, 6, 7)], [source])


def test_windows(assert_equal_in_both):
    cases = [
        lambda b, x: b.max_pool("p", x, (2, 2)),
        lambda b, x: b.max_pool("p", x, (3, 3), stride=(2, 2), padding=((1, 1), (1, 1))),
        lambda b, x: b.max_pool("p", x, (2, 2), stride=(2, 3), ceil_mode=True),
        lambda b, x: b.max_pool("p", x, (2, 1), stride=(5, 5), ceil_mode=True),
    ]
    for case in cases:
        assert_equal_in_both(case, [(4, 7, 8)], [SYMMETRIC])


def test_a_constant_is_joined_to_every_sample(assert_equal_in_both):
    codes = torch.arange(6).reshape(1, 6)
    assert_equal_in_both(
        lambda b, x: b.concatenate("c", (b.constant("token", codes, SYMMETRIC), x), 1), [(4, 6)], [SYMMETRIC]
    )


def test_negation_and_selection(assert_equal_in_both):
    assert_equal_in_both(lambda b, x: b.negate("n", x), [(16,)], [SYMMETRIC])
    assert_equal_in_both(
        lambda b, m, x, y: b.select("s", m, x, y), [(4, 1), (4, 6), (1, 6)], [MASK_GRID, SYMMETRIC, SYMMETRIC]
    )


def test_embeddings_and_arithmetic_of_indices(assert_equal_in_both):
    weight = Weight(torch.arange(-16, 16).reshape(8, 4).to(torch.int8), WeightGrid(8), torch.full((8,), 0.25))
    _, path = assert_equal_in_both(lambda b, x: b.embedding("e", x, weight), [(3,)], [INDICES])
    assert not float_ops(path)
    cases = [
        lambda b, x, y: b.index_table("t", x, [4, 2, 0, 1, 3]),
        lambda b, x, y: b.index_sum("s", x, y),
        lambda b, x, y: b.index_product("p", x, y),
        lambda b, x, y: b.cumulative_sum("c", x, 2),
        lambda b, x, y: b.gather("g", x, b.index_table("t", y, [0, 1, 2, 0, 1]), 1),
    ]
    for case in cases:
        assert_equal_in_both(case, [(3, 4)] * 2, [INDICES] * 2)
