import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qat.errors import ProgramError
from qat.integer.fixed_point import (
    Multiplier,
    SumMultipliers,
    bit_length,
    requantize,
    requantize_product,
    requantize_sum,
    round_once,
    round_to_significant_bits,
)
from qat.integer.values import Grid, float32

BYTE = Grid(1.0, 0, 0, 255)
SIGNED = Grid(1.0, 0, -128, 127)
scales = st.floats(1e-4, 1e2).map(float32)
factors = st.one_of(
    st.floats(1e-7, 4.0).map(float32),
    st.tuples(st.integers(1, 31), st.integers(0, 12)).map(lambda pair: pair[0] / 2.0 ** pair[1]),  # many ties
)
accumulators = st.lists(
    st.one_of(st.integers(-(2**31) + 1, 2**31 - 1), st.integers(-5000, 5000)), min_size=1, max_size=60
)


def multiplier(factor):
    return Multiplier.from_float(torch.tensor(factor, dtype=torch.float32))


def numpy_requantized(acc, factor, grid):
    """The same in float32 arithmetic: round(fl32(fl32(acc) * M)) + zero_point."""
    product = numpy.asarray(acc).astype(numpy.float32) * numpy.float32(factor)
    codes = numpy.rint(product).astype(numpy.float64) + grid.zero_point
    return numpy.clip(codes, grid.quant_min, grid.quant_max).astype(numpy.int64).tolist()


def test_a_factor_is_taken_apart_into_a_24_bit_mantissa():
    three_quarters = multiplier(0.75)
    assert three_quarters.mantissa.tolist() == [3 * 2**22]
    assert three_quarters.exponent.tolist() == [-24]
    assert three_quarters.to_float().item() == 0.75


def test_scales_are_multiplied_then_divided_each_rounded_to_float32():
    sx, sw, sy = numpy.float32(0.1), numpy.float32(0.3), numpy.float32(0.7)
    expected = float((sx * sw) / sy)
    assert Multiplier.from_scales(float(sx), float(sw), float(sy)).to_float().item() == expected


def test_requantize_rounds_ties_to_even_and_saturates():
    codes = requantize(torch.tensor([[1], [2], [3], [5], [-1], [-3], [999]]), multiplier(0.5), SIGNED, -128, 127)
    assert codes.flatten().tolist() == [0, 1, 2, 2, 0, -2, 127]
    assert codes.dtype == torch.int8


def test_requantize_clamps_to_the_fused_activation():
    codes = requantize(torch.tensor([[-50], [3], [90]]), multiplier(1.0), Grid(1.0, 10, 0, 255), 10, 60)
    assert codes.flatten().tolist() == [10, 13, 60]


def test_requantize_rounds_the_accumulator_to_float32_first():
    # 2^24 + 1 is not a float32; it is rounded to 2^24, and 2^24 * 2^-20 is exactly 16.
    assert requantize(torch.tensor([[2**24 + 1]]), multiplier(2.0**-20), BYTE, 0, 255).item() == 16


def test_requantize_has_a_multiplier_per_channel():
    channels = Multiplier.from_float(torch.tensor([1.0, 0.25, 8.0]))
    assert requantize(torch.tensor([[8, 8, 8]]), channels, BYTE, 0, 255).tolist() == [[8, 2, 64]]


@settings(max_examples=300, deadline=None)
@given(accumulators, factors, st.integers(0, 255))
def test_requantize_equals_float32_arithmetic(acc, factor, zero_point):
    grid = Grid(1.0, zero_point, 0, 255)
    codes = requantize(torch.tensor(acc)[:, None], multiplier(factor), grid, 0, 255)
    assert codes.flatten().tolist() == numpy_requantized(acc, factor, grid)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 255))
def test_requantize_equals_float32_arithmetic_next_to_ties(seed, zero_point):
    """Accumulators whose product lies within a few units of the last place of a half."""
    generator = numpy.random.default_rng(seed)
    factor = float(numpy.float32(generator.uniform(1e-6, 1e-2)))
    acc = numpy.rint((generator.integers(-300, 300, 400) + 0.5) / factor).astype(numpy.int64)
    acc = numpy.clip(acc + generator.integers(-1, 2, 400), -(2**31) + 1, 2**31 - 1)
    grid = Grid(1.0, zero_point, 0, 255)
    codes = requantize(torch.from_numpy(acc)[:, None], multiplier(factor), grid, 0, 255)
    assert codes.flatten().tolist() == numpy_requantized(acc, factor, grid)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(-65025, 65025), min_size=1, max_size=60), factors, st.integers(-128, 127))
def test_a_product_is_rounded_once_more_with_the_zero_point(products, factor, zero_point):
    grid = Grid(1.0, zero_point, -128, 127)
    shifted = numpy.asarray(products).astype(numpy.float32) * numpy.float32(factor) + numpy.float32(zero_point + 128)
    expected = numpy.clip(numpy.rint(shifted.astype(numpy.float64)), 0, 255).astype(numpy.int64) - 128
    codes = requantize_product(torch.tensor(products)[:, None], multiplier(factor), grid, -128, 127)
    assert codes.flatten().tolist() == expected.tolist()


def test_a_sum_of_equal_scales_is_an_integer_sum():
    grid = Grid(0.5, 0, 0, 255)
    sum_factors = SumMultipliers.from_grids(grid, grid, grid)
    assert sum_factors.first == sum_factors.second == 2**sum_factors.shift
    codes = requantize_sum(torch.tensor([1, 200]), torch.tensor([2, 100]), sum_factors, grid, 0, 255)
    assert codes.tolist() == [3, 255]


@settings(max_examples=200, deadline=None)
@given(scales, scales, scales, st.integers(0, 255), st.integers(0, 255), st.integers(0, 255))
def test_a_sum_is_exact_in_float32_in_every_order(first_scale, second_scale, scale, za, zb, zc):
    grids = Grid(first_scale, za, 0, 255), Grid(second_scale, zb, 0, 255), Grid(scale, zc, 0, 255)
    try:
        sum_factors = SumMultipliers.from_grids(*grids)
    except ProgramError:
        return
    a, b = numpy.meshgrid(numpy.arange(0, 256, 15, dtype=numpy.float32), numpy.arange(0, 256, 17, dtype=numpy.float32))
    ra = numpy.float32(sum_factors.first / 2**sum_factors.shift)
    rb = numpy.float32(sum_factors.second / 2**sum_factors.shift)
    fixed = numpy.float32(zc) - (ra * numpy.float32(za) + rb * numpy.float32(zb))
    orders = [(fixed + ra * a) + rb * b, (fixed + rb * b) + ra * a, (ra * (a - za) + rb * (b - zb)) + numpy.float32(zc)]
    codes = requantize_sum(
        torch.from_numpy(a).long() - za, torch.from_numpy(b).long() - zb, sum_factors, grids[2], 0, 255
    ).numpy()
    for total in orders:
        assert numpy.array_equal(codes, numpy.clip(numpy.rint(total), 0, 255))


def test_a_sum_has_15_bits_behind_the_point_at_8_bit_codes_and_more_at_4():
    eight = Grid(float32(0.7), 0, 0, 255)
    four = Grid(float32(0.7), 0, 0, 15)
    assert SumMultipliers.from_grids(eight, eight, Grid(1.0, 0, 0, 255)).shift == 15
    assert SumMultipliers.from_grids(four, four, Grid(1.0, 0, 0, 15)).shift == 19


def test_an_operand_too_fine_to_matter_keeps_the_finest_factor():
    zeros = Grid(2.0**-63, 0, -127, 127)  # of a constant that is all zero
    assert SumMultipliers.from_grids(BYTE, zeros, BYTE).second == 1


def test_scales_too_far_apart_are_refused_with_the_values():
    with pytest.raises(ProgramError, match="too far apart"):
        SumMultipliers.from_grids(BYTE, BYTE, Grid(float32(1e-9), 0, 0, 255))
    with pytest.raises(ProgramError, match="too far apart"):
        Multiplier.from_scales(1e30, 1e30, 1.0)


def test_rounding_to_significant_bits_and_bit_length():
    values = torch.tensor([0, 1, -1, 2**24 + 1, 2**24 + 3, -(2**25) - 2, 2**55 - 1])
    assert bit_length(values).tolist() == [0, 1, 1, 25, 25, 26, 55]
    expected = [0, 1, -1, 2**24, 2**24 + 4, -(2**25), 2**55]
    assert round_to_significant_bits(values, 24).tolist() == expected


@given(st.lists(st.integers(-(2**56), 2**56), min_size=1))
def test_rounding_to_24_bits_is_what_a_float32_holds(values):
    # int64 to float32 in one rounding, as numpy converts.
    expected = numpy.asarray(values, dtype=numpy.int64).astype(numpy.float32).astype(numpy.int64)
    assert round_to_significant_bits(torch.tensor(values), 24).tolist() == expected.tolist()


@pytest.mark.parametrize("mantissa", [2**23 - 1, 2**24])
def test_mantissas_that_no_float32_has_are_refused(mantissa):
    with pytest.raises(ProgramError, match="mantissas"):
        Multiplier(torch.tensor([mantissa], dtype=torch.int32), torch.tensor([-24], dtype=torch.int32))


def test_wide_codes_are_rounded_once_halves_up():
    wide = Grid(1.0, 100, 0, 65_535)
    multiplier = Multiplier.from_float(torch.tensor([0.5, 2.0**-40, 2.0**25]))
    sums = torch.tensor([[2**24 + 1, -(2**31) + 1, 1], [3, 2**31 - 1, 0], [-3, 0, -1], [-1, 0, 0]])
    codes = requantize(sums, multiplier, wide, 1, 65_535)
    # 1.5 up to 2, -1.5 up to -1, -0.5 up to 0; float32 would have lost the one of 2^24 + 1
    assert codes.tolist() == [[65_535, 100, 65_535], [102, 100, 100], [99, 100, 1], [100, 100, 100]]
    assert round_once(torch.tensor([2**24 + 1]), torch.tensor([2**23]), torch.tensor([-24])).item() == 2**23 + 1
