"""Moves and choices of codes, and three spatial dimensions: equal in ONNX Runtime and the interpreter."""

import functools

import onnx
import pytest
import torch

from qat.emitters.onnxruntime import float_ops
from qat.integer.operations import MASK_GRID
from qat.integer.values import Grid, IndexRange, Weight, WeightGrid, float32

UNSIGNED = Grid(float32(0.02), 100, 0, 255)
SIGNED = Grid(float32(0.021), -5, -128, 127)
NARROW = Grid(float32(0.3), 2, 0, 15)
SIGNED_NARROW = Grid(float32(0.25), 1, -7, 7)
GRIDS = [UNSIGNED, SIGNED, NARROW, SIGNED_NARROW]
INDICES = IndexRange(5)


@pytest.mark.parametrize("source", [*GRIDS, INDICES])
def test_moves(assert_equal_in_both, source):
    cases = [
        lambda b, x: b.take("t", x, 1, [3, 0, 0, 2]),
        lambda b, x: b.take("t", x, 2, [5, 4, 3, 2, 1, 0]),
        lambda b, x: b.take("t", x, 3, [4, 5, 6, 0, 1, 2, 3]),
        lambda b, x: b.take("t", x, 3, [6]),
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
        lambda b, x: b.top_k("k", x, 1, 1),
    ]
    for case in cases:
        _, path = assert_equal_in_both(case, [(4, 6, 7)], [source])
        assert not float_ops(path)


@pytest.mark.parametrize("source", [UNSIGNED, INDICES])
@pytest.mark.parametrize("shape", [(9,), (4, 9), (4, 3, 9), (2, 2, 3, 9)])
def test_entries_of_the_last_dimension(assert_equal_in_both, shape, source):
    last = len(shape)
    every = [
        ([8, 0, 1, 2, 3, 4, 5, 6, 7], {"Slice", "Concat"}),
        ([0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 8, 8], {"Slice", "Concat"}),
        ([3, 4, 5], {"Slice"}),
        ([8, 7, 6, 5, 4, 3, 2, 1, 0], {"Gather"}),
        ([place // 3 for place in range(27)], {"Resize"} if last < 4 and source is not INDICES else {"Gather"}),
    ]
    for indices, kinds in every:
        _, path = assert_equal_in_both(functools.partial(taken, last, indices), [shape], [source])
        edges = {"QuantizeLinear", "DequantizeLinear", "Identity", "Clip"}
        assert {node.op_type for node in onnx.load(path).graph.node} - edges == kinds
        assert not float_ops(path)


def taken(dim, indices, builder, x):
    return builder.take("t", x, dim, indices)


@pytest.mark.parametrize("source", [*GRIDS, Grid(0.5, 4, 3, 9)])
def test_negation_mirrors_codes_and_zero_point(assert_equal_in_both, source):
    program, _ = assert_equal_in_both(lambda b, x: b.negate("n", x), [(16, 16)], [source])
    real = (torch.arange(256).reshape(1, 16, 16) % (source.quant_max - source.quant_min + 1) + source.quant_min).float()
    real = (real - source.zero_point) * source.scale
    assert torch.equal(program(real)["y0"], -real)


@pytest.mark.parametrize("source", [*GRIDS, INDICES])
def test_selection_by_values_and_constants(assert_equal_in_both, source):
    codes = torch.tensor([1, 3, 2, 4, 0, 1, 1])
    mask = torch.tensor([[0], [1], [1], [0], [0], [1]])

    def constant(builder):
        return builder.constant("k", codes.reshape(1, 7), source)

    cases = [
        lambda b, m, x, y: b.select("s", m, x, y),
        lambda b, m, x, y: b.select("s", m, x, constant(b)),
        lambda b, m, x, y: b.select("s", m, constant(b), y),
        lambda b, m, x, y: b.select("s", b.constant("m", mask, MASK_GRID), x, y),
    ]
    for case in cases:
        assert_equal_in_both(case, [(6, 1), (6, 7), (6, 7)], [MASK_GRID, source, source])


@pytest.mark.parametrize("source", [*GRIDS, INDICES])
def test_constants_are_joined_to_every_sample(assert_equal_in_both, source):
    def write(builder, x):
        first = builder.constant("class token", torch.tensor([[1, 2, 3]]), source)
        last = builder.constant("last", torch.tensor([[3, 2, 1], [0, 0, 1]]), source)
        return builder.concatenate("c", (first, x, last), 1)

    assert_equal_in_both(write, [(4, 3)], [source])


@pytest.mark.parametrize("source", [UNSIGNED, SIGNED])
def test_three_spatial_dimensions(assert_equal_in_both, source):
    def weight(*shape):
        codes = torch.randint(-128, 128, shape, generator=torch.Generator().manual_seed(0)).to(torch.int8)
        return Weight(codes, WeightGrid(8), torch.full(shape[:1], float32(0.002)))

    pads = ((1, 1), (0, 1), (1, 0))
    cases = [
        lambda b, x: b.conv("c", x, weight(6, 4, 3, 2, 1), UNSIGNED, padding=pads, stride=(1, 2, 1)),
        lambda b, x: b.conv("c", x, weight(8, 1, 3, 2, 1), UNSIGNED, groups=4, dilation=(1, 2, 1)),
        lambda b, x: b.conv("c", x, weight(8, 2, 1, 1, 1), UNSIGNED, groups=2, bias=torch.arange(8).int()),
        lambda b, x: b.average_pool("a", x, (2, 3, 2), SIGNED, padding=pads, stride=(1, 2, 2)),
        lambda b, x: b.max_pool("m", x, (2, 2, 2), padding=pads, ceil_mode=True),
        lambda b, x: b.max_pool("m", x, (3, 2, 1), (1, 1, 1), dilation=(2, 1, 1)),
        lambda b, x: b.mean("m", x, (2, 3, 4), UNSIGNED),
    ]
    for case in cases:
        _, path = assert_equal_in_both(case, [(4, 6, 7, 5)], [source])
        assert not float_ops(path)


@pytest.mark.parametrize(("dims", "keepdim"), [((1,), True), ((2, 3), False), ((1, 3), False)])
@pytest.mark.parametrize("source", GRIDS)
def test_sums(assert_equal_in_both, source, dims, keepdim):
    wide = Grid(float32(0.5), 100, 0, 255)
    assert_equal_in_both(lambda b, x: b.sum("s", x, dims, wide, keepdim=keepdim), [(4, 6, 7)], [source])
