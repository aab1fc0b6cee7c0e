import pytest
import torch

from qat.emitters import emitter_of
from qat.errors import ProgramError
from qat.integer.builder import ProgramBuilder
from qat.integer.fixed_point import Multiplier, SumMultipliers
from qat.integer.program import IntegerProgram
from qat.integer.semantics import for_runtime
from qat.integer.sixteen_bits import (
    DOUBLE,
    REDUCED,
    SINGLE,
    FixedMultiplier,
    FixedSum,
    factor_parts,
    multiplied,
    requantize_fixed_sum,
)
from qat.integer.values import Grid, Weight, WeightGrid, float32

WIDE = Grid(0.5, 0, -32767, 32767)


def parts(factors):
    return factors.mantissa.tolist(), factors.exponent.tolist()


def codes(kind, sums, mantissa, exponent):
    return multiplied(kind, torch.tensor(sums), torch.tensor(mantissa), torch.tensor(exponent)).tolist()


def test_a_factor_is_a_mantissa_and_a_power_of_two():
    # 1/2 * 3/8 / 1/4 = 3/4 = 3/4 * 2^0: 3/4 * 2^31 = 1610612736, of which the upper 15 bits are 24576
    scales = 0.5, torch.tensor([0.375]), 0.25
    assert parts(FixedMultiplier.from_scales(DOUBLE, *scales)) == ([1610612736], [-31])
    assert parts(FixedMultiplier.from_scales(REDUCED, *scales)) == ([24576], [-15])
    # 0.5 * 2^-9: the power of two stands below the mantissa
    assert parts(FixedMultiplier.from_scales(DOUBLE, 2.0**-10, 1.0, 1.0)) == ([2**30], [-40])


def test_a_reduced_mantissa_that_rounds_up_to_16_bits_is_the_largest_of_15():
    # (2^24 - 1) / 2^24 * 2^31 = 2147483520, and (2147483520 + 2^15) >> 16 = 32768
    almost = float32(1 - 2**-24)
    assert parts(FixedMultiplier.from_scales(REDUCED, almost, 1.0, 1.0)) == ([32767], [-15])


def test_scales_of_sums_are_multiplied_in_float64_and_those_of_products_in_float32():
    third = torch.tensor(1 / 3)  # 11184811 * 2^-25, whose square has 47 bits, of which float32 keeps 24
    (mantissa, exponent), one = factor_parts(SINGLE, third, third, torch.tensor(1.0)), torch.tensor(1.0)
    assert (int(mantissa), int(exponent)) == (round(11184811**2 / 2**47 * 2**31), -34)
    (rounded, _) = factor_parts(DOUBLE, third, third, one)
    assert int(rounded) % 2**7 == 0 and int(rounded) != int(mantissa)


def test_sums_are_rounded_half_up_once():
    # times 3/4: 0.75, 1.5, 2.25, 4.5 and their negatives; the tie of -1.5 goes to -1, of -4.5 to -4
    sums = [1, 2, 3, 6, -1, -2, -3, -6]
    for kind, mantissa, exponent in ((REDUCED, 24576, -15), (SINGLE, 1610612736, -31)):
        assert codes(kind, sums, mantissa, exponent) == [1, 2, 2, 5, -1, -1, -2, -4]
    # sums of more than 32 bits
    assert codes(REDUCED, [2**37, -(2**37) + 1], 2**15 - 1, -15 - 20) == [2**17 - 4, -(2**17) + 4]


def test_products_are_rounded_twice_at_last_away_from_zero():
    # times 1/2 * 2^-1: 6 -> 3 -> 1.5 -> 2; -6 -> -3 -> -1.5 -> -2; 5 -> 2.5 up 3 -> 1.5 -> 2; -5 -> -2.5 up -2 -> -1
    assert codes(DOUBLE, [6, -6, 5, -5, 4, 0], 2**30, -32) == [2, -2, 2, -1, 1, 0]
    # times 3: raised by 2 bits and times 3/4
    assert codes(DOUBLE, [5, -7], 1610612736, -29) == [15, -21]


def test_operands_of_a_sum_are_raised_before_they_are_weighted():
    # scales 1/2 and 1/4, to 1/2: both over twice the larger are 1/2 and 1/4; the sum times 1 / (2^15 * 1/2) = 2^-14
    factors = FixedSum.from_grids(WIDE, Grid(0.25, 0, -32767, 32767), WIDE)
    assert factors == FixedSum(2**30, 0, 2**30, -1, 2**30, -13)
    first, second = torch.tensor([5, 5, -5, 0, 32767]), torch.tensor([3, 1, -1, -3, 32767])
    # 6.5, 5.5, -5.5, -1.5 and 49150.5: ties away from zero, then the end of the grid
    assert requantize_fixed_sum(first, second, factors, WIDE, -32767, 32767).tolist() == [7, 6, -6, -2, 32767]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FixedMultiplier.from_scales(REDUCED, 1e-20, 1.0, 1.0), "range that collapsed"),
        (lambda: FixedMultiplier(torch.tensor([2**15], dtype=torch.int32), torch.tensor([-20], dtype=torch.int32),
                                 REDUCED), "must lie in 16384..32767"),
        (lambda: FixedMultiplier(torch.tensor([2**14], dtype=torch.int32), torch.tensor([0], dtype=torch.int32),
                                 REDUCED), "exponents .* must lie in -46..-8"),
        (lambda: FixedMultiplier(torch.tensor([1], dtype=torch.int32), torch.tensor([0], dtype=torch.int32), "other"),
         "is of kind 'other'"),
        (lambda: FixedSum.from_grids(WIDE, WIDE, Grid(float32(1e-5), 0, -32767, 32767)), "larger scale over 2\\^14"),
    ],
)  # fmt: skip
def test_factors_that_no_kernel_has_are_refused(make, message):
    with pytest.raises(ProgramError, match=message):
        make()


def network():
    builder = ProgramBuilder()
    x = builder.input("x", (4, 6), WIDE)
    weight = Weight(torch.randint(-127, 128, (4, 4, 3), dtype=torch.int8), WeightGrid(8), torch.full((4,), 0.01))
    y = builder.conv("conv", x, weight, WIDE, padding=((1, 1),))
    y = builder.mul("mul", builder.add("add", x, y, WIDE), y, Grid(float32(0.3), 0, -32767, 32767))
    flat = Weight(torch.randint(-127, 128, (3, 6), dtype=torch.int8), WeightGrid(8), torch.full((3,), 0.02))
    y = builder.linear("linear", builder.requantize("half", y, WIDE, factor=0.5), flat, WIDE)
    builder.output("y", builder.mean("mean", y, (2,), WIDE))
    return builder.build()


def kinds(program):
    return {each.name: getattr(getattr(each, "multiplier", None), "kind", None) for each in program.operations}


def test_wide_codes_are_rescaled_in_fixed_point_on_litert_alone():
    made = network()
    litert = for_runtime(made, "litert")
    assert kinds(litert) == {
        "conv": REDUCED, "add": None, "mul": DOUBLE, "half": DOUBLE, "linear": REDUCED, "mean": REDUCED,
    }  # fmt: skip
    back = for_runtime(litert, "c")
    assert all(isinstance(each.multiplier, Multiplier) for each in back.operations if hasattr(each, "multiplier"))
    x = torch.randn(3, 4, 6) * 1000
    assert torch.equal(back({"x": x}), made({"x": x}))
    add = next(each for each in back.operations if each.name == "add")
    assert isinstance(add.factors, SumMultipliers)


def test_a_program_of_fixed_factors_is_stored_and_is_a_module(tmp_path):
    litert = for_runtime(network(), "litert")
    litert.save(tmp_path)
    read = IntegerProgram.load(tmp_path)
    assert kinds(read) == kinds(litert)
    x = torch.randn(3, 4, 6) * 1000
    expected = litert({"x": x})
    assert torch.equal(read({"x": x}), expected) and torch.equal(litert.to_module()(x), expected)


def sums(count, grid):
    """One sum of `count` products with the weight 127."""
    builder = ProgramBuilder()
    weight = Weight(torch.full((1, count), 127, dtype=torch.int8), WeightGrid(8), torch.full((1,), 0.01))
    builder.output("y", builder.linear("linear", builder.input("x", (count,), WIDE), weight, grid))
    return builder.build()


def test_sums_of_wide_products_have_64_bits():
    coarse = Grid(float32(1.27 * 4096), 0, -32767, 32767)
    made = sums(4096, coarse)
    x = torch.full((1, 4096), 15000.0)  # codes of 30000, whose sum is 4096 * 127 * 30000 = 15605760000
    for program in (made, made.to_module(), for_runtime(made, "litert"), for_runtime(made, "litert").to_module()):
        result = program(x) if isinstance(program, torch.nn.Module) else program({"x": x})
        assert torch.equal(result, torch.tensor([[15000 * coarse.scale]]))
    (refusal,) = emitter_of("c").refusals(made)
    assert refusal.detail == "here they reach 17045131264"
    with pytest.raises(ProgramError, match="accumulate up to 17045131264, beyond the 2147483647 of int32"):
        sums(4096, Grid(float32(1.27 * 2**20), 0, -128, 127))
    with pytest.raises(ProgramError, match="beyond the 137438953471 of sums of wide codes"):
        sums(2**16, coarse)


def test_operands_of_a_sum_are_rounded_once_and_the_sum_twice():
    # a second operand of 2^-15 of the first: half of 2^-15, so that -1 << 15 is a tie at -1/2, which goes up to 0
    factors = FixedSum.from_grids(Grid(1.0, 0, -32767, 32767), Grid(2.0**-15, 0, -32767, 32767), WIDE)
    assert factors.parts[1] == (2**30, -15)
    assert factors.sums(torch.tensor([0, 0, 1]), torch.tensor([-1, 1, -3])).tolist() == [0, 1, 2**14 - 1]
    # measured: scales of a network whose second operand is 1604367762 * 2^-32 of 2^15, its sum 2020587751 * 2^-45
    factors = FixedSum(1073741824, 0, 1604367762, -1, 2020587751, -14)
    pairs = torch.tensor([[2516, 13263], [4343, 757], [-2837, 8982], [4936, 4369]]).T
    assert factors.steps(factors.sums(*pairs)).tolist() == [11690, 4618, 3644, 7715]
