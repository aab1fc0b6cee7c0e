import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qat.errors import ProgramError
from qat.integer.half_up import HalfUpMultipliers, requantize_half_up
from qat.integer.values import Grid, float32

BYTE = Grid(1.0, 0, 0, 255)
SIGNED = Grid(1.0, 0, -128, 127)


def test_the_larger_factor_has_21_bits():
    # ratios 1/2 and 1/8: the larger has the exponent -1, so the shift is 21
    factors = HalfUpMultipliers.from_grids(Grid(0.5, 0, 0, 255), Grid(0.125, 0, 0, 255), BYTE)
    assert factors == HalfUpMultipliers(first_factor=2**20, second_factor=2**18, shift=21)
    # 3 = 1.5 * 2^1, so the shift is 19: 3 * 2^19 and 1 * 2^19
    factors = HalfUpMultipliers.from_grids(Grid(1.0, 0, 0, 255), Grid(3.0, 0, 0, 255), BYTE)
    assert factors == HalfUpMultipliers(2**19, 3 * 2**19, 19)


def test_ratios_are_rounded_to_float32_and_then_to_the_shift():
    third = float32(1 / 3)
    # fl32(1 / fl32(1 / 3)) is 3 exactly; fl32(fl32(1/3) / fl32(1/3)) is 1
    assert HalfUpMultipliers.from_grids(BYTE, Grid(third, 0, 0, 255), Grid(third, 0, 0, 255)) == HalfUpMultipliers(
        3 * 2**19, 2**19, 19
    )
    # 1/3 * 2^22 = 1398101.33...
    assert HalfUpMultipliers.from_grids(Grid(third, 0, 0, 255), Grid(third, 0, 0, 255), BYTE) == HalfUpMultipliers(
        1398101, 1398101, 22
    )


def test_ties_go_up():
    factors = HalfUpMultipliers(2**20, 2**20, 21)  # halves
    first = torch.tensor([1, -1, 3, -3, 2, 127, -128], dtype=torch.int32)
    second = torch.zeros(7, dtype=torch.int32)
    assert requantize_half_up(first, second, factors, SIGNED, -128, 127).tolist() == [1, 0, 2, -1, 1, 64, -64]


def test_the_zero_point_is_added_behind_and_codes_are_clamped():
    factors = HalfUpMultipliers(2**20, 2**20, 20)
    first, second = torch.tensor([5, 250, -9]), torch.tensor([1, 10, 0])
    grid = Grid(1.0, 7, 0, 255)
    assert requantize_half_up(first, second, factors, grid, 7, 200).tolist() == [13, 200, 7]


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        ((2**21 + 1, 5, 20), "the larger lies in 2\\^20..2\\^21"),
        ((2**20, -1, 20), "none is negative"),
        ((2**20, 5, 12), "it lies in 13..30"),
    ],
)
def test_factors_that_no_kernel_has_are_refused(factors, message):
    with pytest.raises(ProgramError, match=message):
        HalfUpMultipliers(*factors)


def test_scales_too_far_apart_are_refused():
    with pytest.raises(ProgramError, match="larger scale over that of the output lies in 2\\^-10 to below 2\\^8"):
        HalfUpMultipliers.from_grids(Grid(256.0, 0, 0, 255), BYTE, BYTE)
    HalfUpMultipliers.from_grids(Grid(float32(255.9), 0, 0, 255), BYTE, BYTE)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.tuples(*[st.floats(1e-3, 8.0).map(float32)] * 3),
    st.lists(st.tuples(st.integers(-255, 255), st.integers(-255, 255)), min_size=1, max_size=50),
)
def test_sums_are_within_a_code_of_the_real_ones(scales, pairs):
    first, second, output = (Grid(scale, 0, 0, 255) for scale in scales)
    if max(scales[:2]) / scales[2] >= 256 or max(scales[:2]) / scales[2] < 2**-10:
        return
    factors = HalfUpMultipliers.from_grids(first, second, output)
    for a, b in pairs:
        real = (a * scales[0] + b * scales[1]) / scales[2]
        steps = int(factors.steps(torch.tensor(a), torch.tensor(b)))
        # each factor is off by half of 2^-shift at most, times 255
        assert abs(steps - real) <= 0.5 + 255 * 2.0**-factors.shift + abs(real) * 2**-22
