"""One rounding is proven equal to two for every accumulator, or not used."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qat.integer.fixed_point import Multiplier, requantize, requantize_product
from qat.integer.one_rounding import Rescale
from qat.integer.values import Grid, float32

BYTE = Grid(1.0, 3, 0, 255)
LAST = 2**31 - 1
EXACT = (requantize, requantize_product)
grids = st.sampled_from(
    [BYTE, Grid(1.0, 0, 0, 255), Grid(1.0, -5, -128, 127), Grid(1.0, 0, 0, 15), Grid(1.0, 100, 0, 4095)]
)
factors = st.floats(2.0**-19, 30.0).map(float32)


def beside_every_step(fast):
    """Accumulators around every change of code, and the ends of int32; int64 (O, M)."""
    around = (fast.steps()[..., None] + torch.arange(-3, 4)).flatten(1)
    ends = torch.tensor([-LAST, 0, LAST]).expand(len(around), 3)
    return torch.cat([around, ends], 1).clamp(-LAST, LAST)


@settings(max_examples=80, deadline=None)
@given(st.lists(factors, min_size=1, max_size=4), grids, st.booleans(), st.sampled_from(EXACT), st.integers(0, 2**30))
def test_codes_equal_those_rounded_twice(channel_factors, grid, fused_relu, exact, seed):
    multiplier = Multiplier.from_float(torch.tensor(channel_factors, dtype=torch.float32))
    limits = grid.zero_point if fused_relu else grid.quant_min, grid.quant_max
    fast = Rescale.of(multiplier, grid, *limits, exact)
    if fast is None:
        return
    generator = torch.Generator().manual_seed(seed)
    anywhere = torch.randint(-LAST, LAST, (len(channel_factors), 500), generator=generator)
    for sums in (beside_every_step(fast), anywhere, anywhere >> 12):
        expected = exact(sums.T, multiplier, grid, *limits).T
        assert torch.equal(fast.codes(sums), expected)
        assert torch.equal(fast.codes(sums.to(torch.int32)), expected)


def test_ties_go_to_even_codes():
    # 2^-16 * accumulator ties at 0.5, 1.5 and 2.5; the first and the last go down, of a zero point of 1 as well.
    multiplier = Multiplier.from_float(torch.tensor([2.0**-16]))
    ties = torch.tensor([[2**15, 3 * 2**15, 5 * 2**15]])
    for zero_point in (0, 1):
        fast = Rescale.of(multiplier, Grid(1.0, zero_point, 0, 255), 0, 7, requantize)
        assert fast.exceptions == () and fast.distance is not None
        assert fast.codes(ties).tolist() == [[zero_point, 2 + zero_point, 2 + zero_point]]
        assert fast.codes(ties - 1).tolist() == [[zero_point, 1 + zero_point, 2 + zero_point]]


def test_what_no_distance_tells_from_ties_is_listed():
    # Every step has two million accumulators; those that float32 stores as a tie are more for larger codes.
    multiplier, grid = Multiplier.from_float(torch.tensor([float32(2.0**-21 * 1.1)])), Grid(1.0, 0, 0, 255)
    fast = Rescale.of(multiplier, grid, 0, 7, requantize)
    assert fast.exceptions
    for channel, accumulator, code in fast.exceptions:
        assert channel == 0 and int(requantize(torch.tensor([accumulator]), multiplier, grid, 0, 7)) == code
        assert fast.codes(torch.tensor([[accumulator]])).tolist() == [[code]]


def test_what_no_accumulator_reaches_is_not_listed():
    multiplier, grid = Multiplier.from_float(torch.tensor([float32(2.0**-21 * 1.1)])), Grid(1.0, 0, 0, 255)
    assert Rescale.of(multiplier, grid, 0, 7, requantize, reach=2**19).exceptions == ()


def test_a_bias_is_added_before():
    multiplier = Multiplier.from_float(torch.tensor([2.0**-16, 0.25]))
    fast = Rescale.of(multiplier, Grid(1.0, 0, 0, 255), 0, 3, requantize)
    bias = torch.tensor([5 * 2**15, 2], dtype=torch.int32)
    assert fast.codes(torch.tensor([[0, 1], [0, 4]], dtype=torch.int32), bias).tolist() == [[2, 3], [0, 2]]


@pytest.mark.parametrize("factor", [0.5, 2.0**-60])
def test_halves_and_factors_of_dead_channels_are_rounded_once(factor):
    multiplier = Multiplier.from_float(torch.tensor([factor]))
    fast = Rescale.of(multiplier, BYTE, 0, 255, requantize)
    sums = torch.tensor([[-LAST, -5, -3, -1, 0, 1, 3, 5, 2**29 - 1, 2**29, 2**29 + 1, 3 * 2**29, LAST]])
    assert torch.equal(fast.codes(sums), requantize(sums.T, multiplier, BYTE, 0, 255).T)


def test_factors_that_shift_to_the_left_are_computed_in_full():
    assert Rescale.of(Multiplier.from_float(torch.tensor([2.0**25])), BYTE, 0, 255, requantize) is None
