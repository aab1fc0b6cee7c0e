"""Elementwise operations as QDQ nodes: equal codes in ONNX Runtime with optimizations off and in the interpreter."""

import onnx
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qat.emitters.tensorrt import open_session, run_session
from qat.integer.values import Grid, IndexRange, float32

FULL = Grid(float32(0.02), 0, -128, 127)
SYMMETRIC = Grid(float32(0.021), 0, -127, 127)
RELU = Grid(float32(0.013), 0, 0, 127)
NARROW = Grid(float32(0.3), 0, 0, 15)
SIGNED_NARROW = Grid(float32(0.25), 0, -7, 7)
GRIDS = [FULL, SYMMETRIC, RELU, NARROW, SIGNED_NARROW]
HALF = Grid(0.5, 0, -127, 127)
ONE = Grid(1.0, 0, -127, 127)


def kinds(path):
    return [node.op_type for node in onnx.load(path).graph.node]


@pytest.mark.parametrize("output", GRIDS)
@pytest.mark.parametrize("first", GRIDS)
def test_sums_and_products_of_every_pair_of_grids(assert_equal_in_both, first, output):
    for second in (SYMMETRIC, NARROW):
        assert_equal_in_both(lambda b, x, y: b.add("a", x, y, output), [(3, 40)] * 2, [first, second])
        assert_equal_in_both(lambda b, x, y: b.mul("m", x, y, output), [(3, 40), (1, 40)], [first, second])
    assert_equal_in_both(lambda b, x: b.requantize("q", x, output), [(40,)], [first])
    assert_equal_in_both(lambda b, x: b.requantize("q", x, output, factor=-0.37), [(40,)], [first])


def test_a_tie_of_a_sum_goes_to_the_even_code_that_counts_from_zero(assert_equal_in_both):
    program, path = assert_equal_in_both(lambda b, x, y: b.add("a", x, y, ONE), [(4,)] * 2, [HALF, ONE])
    real = {"x0": torch.tensor([[0.5, 1.5, -0.5, 2.5]]), "x1": torch.zeros(1, 4)}
    # codes 0.5, 1.5, -0.5 and 2.5 count 127.5, 128.5, 126.5 and 129.5 from 0
    assert program(real)["y0"].tolist() == [[1.0, 1.0, -1.0, 3.0]]
    assert run_session(open_session(path), real)["y0"].tolist() == [[1.0, 1.0, -1.0, 3.0]]
    assert kinds(path).count("Round") == 1


def test_no_rounding_of_its_own_where_ties_agree(assert_equal_in_both):
    halves, ones = (Grid(scale, 0, -128, 127) for scale in (0.5, 1.0))
    _, path = assert_equal_in_both(lambda b, x, y: b.add("a", x, y, ones), [(4,)] * 2, [halves, ones])
    assert "Round" not in kinds(path) and "Clip" not in kinds(path)


@pytest.mark.parametrize(
    ("grid", "clamp", "limits"),
    [
        (FULL, None, []),
        (FULL, (0, 127), ["Relu"]),
        (SYMMETRIC, (0, 127), ["Relu"]),
        (RELU, None, ["Relu"]),
        (SYMMETRIC, None, ["Clip"]),
        (NARROW, None, ["Clip"]),
        (FULL, (-128, 5), ["Clip"]),
        (FULL, (-3, 127), ["Clip"]),
    ],
)
def test_a_clamp_is_a_relu_where_it_is_one_and_none_where_int8_ends(assert_equal_in_both, grid, clamp, limits):
    _, path = assert_equal_in_both(lambda b, x: b.requantize("q", x, grid, clamp=clamp), [(40,)], [FULL])
    assert [kind for kind in kinds(path) if kind in ("Relu", "Clip")] == limits


@pytest.mark.parametrize("source", [*GRIDS, IndexRange(9)])
def test_functions_are_looked_up(assert_equal_in_both, source):
    count = source.quant_max - source.quant_min + 1
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(-127, 128, (3, count), generator=generator).to(torch.int8)
    assert_equal_in_both(lambda b, x: b.table("t", x, codes[0].contiguous(), SYMMETRIC), [(3, 5)], [source])
    assert_equal_in_both(lambda b, x: b.table("t", x, codes, SYMMETRIC), [(3, 5)], [source])


def test_operands_may_be_constants(assert_equal_in_both):
    codes = torch.tensor([[3], [-127], [127]])
    for method in ("add", "mul"):
        assert_equal_in_both(
            lambda b, x, m=method: getattr(b, m)("o", x, b.constant("c", codes, SYMMETRIC), FULL), [(3, 5)], [FULL]
        )


@settings(max_examples=12, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(scales=st.tuples(*[st.floats(0.01, 1)] * 3), lowest=st.tuples(*[st.sampled_from([-128, -127, 0])] * 3))
def test_any_scales(assert_equal_in_both, scales, lowest):
    first, second, output = (
        Grid(float32(scale), 0, low, 127) for scale, low in zip(scales, lowest, strict=True)
    )  # fmt: skip
    assert_equal_in_both(lambda b, x, y: b.add("a", x, y, output), [(64,)] * 2, [first, second])
    assert_equal_in_both(lambda b, x, y: b.mul("m", x, y, output), [(64,)] * 2, [first, second])
