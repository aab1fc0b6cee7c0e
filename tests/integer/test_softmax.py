"""Softmax and its logarithm: written-out numbers, and the float64 functions rounded to the grid."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qat.errors import ProgramError
from qat.integer.builder import ProgramBuilder
from qat.integer.interpreter import run
from qat.integer.kernels.softmax import integer_log
from qat.integer.operations import MASK_GRID, LogSoftmaxFactors, SoftmaxFactors
from qat.integer.program import IntegerProgram
from qat.integer.values import Grid, float32

HALVES = Grid(float32(math.log(2)), 0, 0, 255)  # a step is a factor of 2
SHARES = Grid(float32(1 / 256), 0, 0, 255)
SCALES = st.floats(2.0**-14, 1.0).map(float32)


def softmax_of(codes, source, target, mask=None, dim=1, kind="softmax", **settings):
    """Output codes for one sample of codes (nested lists, without the batch)."""
    builder = ProgramBuilder()
    codes = torch.as_tensor(codes)
    x = builder.input("x", tuple(codes.shape), source)
    if mask is not None:
        settings["mask"] = builder.constant("mask", torch.tensor(mask), MASK_GRID)
    builder.output("y", getattr(builder, kind)("y", x, dim, target, **settings))
    return run(builder.build(), {"x": codes[None].to(source.dtype)})["y"][0]


def random_codes(grid, count, seed, rows=20):
    spread = torch.rand(rows, 1, generator=torch.Generator().manual_seed(seed)) * (grid.quant_max - grid.quant_min)
    codes = torch.randn(rows, count, generator=torch.Generator().manual_seed(seed)) * spread + grid.zero_point
    return codes.round().clamp(grid.quant_min, grid.quant_max).to(torch.int64)


def test_shares_of_powers_of_two():
    # 8 : 4 : 4 of 16, and 16 of 16
    assert softmax_of([7, 6, 6], HALVES, SHARES).tolist() == [128, 64, 64]
    assert softmax_of([7, 6, 6], HALVES, Grid(float32(0.125), -4, -4, 3)).tolist() == [0, -2, -2]
    assert softmax_of([200, 3, 0], HALVES, SHARES).tolist() == [255, 0, 0]


def test_a_tie_rounds_up():
    # an eighth is half a step of a quarter
    assert softmax_of([5] * 8, HALVES, Grid(0.25, 0, 0, 15)).tolist() == [1] * 8


def test_the_sum_runs_over_the_dimension_alone():
    codes = [[9, 9, 0], [9, 8, 20]]
    assert softmax_of(codes, HALVES, SHARES, dim=1).tolist() == [[128, 171, 0], [128, 85, 255]]
    assert softmax_of(codes, HALVES, SHARES, dim=2).tolist() == [[128, 128, 0], [0, 0, 255]]


def test_what_is_masked_takes_no_part():
    codes = [[7, 250, 7], [7, 6, 6], [1, 2, 3]]
    mask = [[1, 0, 1], [1, 1, 1], [0, 0, 0]]
    assert softmax_of(codes, HALVES, SHARES, mask, dim=2).tolist() == [[128, 0, 128], [128, 64, 64], [0, 0, 0]]
    affine = Grid(float32(1 / 128), -100, -128, 127)
    assert softmax_of(codes, HALVES, affine, mask, dim=2)[2].tolist() == [-100, -100, -100]


def test_a_mask_is_broadcast():
    codes = [[[3, 3], [3, 3]], [[4, 4], [5, 5]]]
    expected = [[[255, 0], [128, 128]], [[255, 0], [128, 128]]]
    assert softmax_of(codes, HALVES, SHARES, [[[1, 0], [1, 1]]], dim=3).tolist() == expected


def test_clamps():
    assert softmax_of([7, 6, 6], HALVES, SHARES, clamp=(10, 100)).tolist() == [100, 64, 64]


@given(
    count=st.sampled_from([1, 2, 7, 64, 197, 3000]),
    scale=SCALES,
    signed=st.booleans(),
    bits=st.sampled_from([2, 4, 8, 16]),
    top=st.floats(0.01, 1.0),
    seed=st.integers(0, 2**31),
)
@settings(deadline=None, max_examples=60)
def test_is_the_float64_softmax_rounded_to_the_grid(count, scale, signed, bits, top, seed):
    source = Grid(scale, -3, -128, 127) if signed else Grid(scale, 3, 0, 2 ** min(bits, 8) - 1)
    target = Grid(float32(top / (2**bits - 1)), 0, 0, 2**bits - 1)
    codes = random_codes(source, count, seed)
    actual = softmax_of(codes, source, target, dim=2)
    real = torch.softmax(codes.to(torch.float64) * source.scale, 1) / target.scale
    expected = (real + 0.5).floor().clamp(0, target.quant_max).to(torch.int64)
    wrong = actual.to(torch.int64) != expected
    # A code may only come out differently where the real one lies next to a tie, and then by one.
    assert (actual.to(torch.int64) - expected).abs().max() <= 1
    assert ((real - 0.5 - (real - 0.5).round()).abs()[wrong] < (2.0**-6 if bits <= 8 else 2.0**-2)).all()


@given(count=st.sampled_from([1, 2, 7, 197, 3000]), scale=SCALES, step=st.floats(0.01, 2.0), seed=st.integers(0, 2**31))
@settings(deadline=None, max_examples=40)
def test_its_logarithm_is_the_float64_one_rounded_to_the_grid(count, scale, step, seed):
    source, target = Grid(scale, -3, -128, 127), Grid(float32(step), 255, 0, 255)
    codes = random_codes(source, count, seed)
    actual = softmax_of(codes, source, target, dim=2, kind="log_softmax").to(torch.int64)
    real = torch.log_softmax(codes.to(torch.float64) * source.scale, 1) / target.scale
    expected = ((real - 0.5).ceil() + 255).clamp(0, 255).to(torch.int64)
    wrong = actual != expected
    assert (actual - expected).abs().max() <= 1
    assert ((real - 0.5 - (real - 0.5).round()).abs()[wrong] < 2.0**-8).all()


@pytest.mark.parametrize("count", [1000, 50000])
def test_many_elements_far_below_the_largest_count_together(count):
    # each is 2^-20 of the largest, and all of them take up to a 20th of the sum
    actual = softmax_of([20] + [0] * (count - 1), HALVES, SHARES)
    assert actual[0] == math.floor(256 / (1 + (count - 1) / 2**20) + 0.5) - (count == 1000)  # clamped from 256


def test_logarithms_of_powers_of_two():
    steps = Grid(HALVES.scale, 0, -128, 127)
    assert softmax_of([7, 6, 6], HALVES, steps, kind="log_softmax").tolist() == [-1, -2, -2]
    assert softmax_of([255, 6, 0], HALVES, steps, kind="log_softmax").tolist() == [0, -128, -128]


@given(bits=st.integers(1, 29), digits=st.integers(1, 9), share=st.floats(0, 1))
def test_integer_logarithms_are_within_two_of_the_real_one(bits, digits, share):
    bits = max(bits, 12 - digits)
    number = min(int(2 ** (bits + share * digits)) + 1, 2 ** (bits + digits))
    found = int(integer_log(torch.tensor([number]), bits, digits))
    assert abs(found - math.log(number / 2**bits) * 2**30) <= 2


@pytest.mark.parametrize("count", [1, 31, 2**10 - 1, 2**10, 2**18, 2**24])
@pytest.mark.parametrize("target", [SHARES, Grid(float32(2.0**-40), 0, 0, 255), Grid(float32(2**-16), 0, 0, 2**16 - 1)])
def test_no_sum_leaves_the_integers_it_is_made_in(count, target):
    factors = SoftmaxFactors.from_grids(HALVES, target, count)
    one, limit = int(factors.exponentials[0]), 2**31 if target.bits <= 8 else 2**63
    assert target.bits > 8 or (one * count < 2**31) == (count < 2**10)
    assert one * count < 2**63
    assert (one * count >> factors.sum_shift) * factors.divisor_factor + factors.half < 2**63
    assert (one << factors.numerator_shift) + factors.divisor_limit // 2 < limit and factors.divisor_limit < limit
    # what is cut to the limit gives 0
    assert ((one << factors.numerator_shift) + factors.divisor_limit // 2) // factors.divisor_limit == 0


def test_an_output_coarser_than_its_results_is_refused():
    with pytest.raises(ProgramError, match="give it a scale of at most 1"):
        softmax_of([1, 2], HALVES, Grid(float32(3e9), 0, 0, 255))
    with pytest.raises(ProgramError, match="range has collapsed"):
        softmax_of([1, 2], HALVES, Grid(2.0**-100, 0, 0, 255), kind="log_softmax")


FACTORS = SoftmaxFactors.from_grids(HALVES, SHARES, 3)


@pytest.mark.parametrize("factors", [SoftmaxFactors, LogSoftmaxFactors])
def test_factors_are_the_same_for_all_counts_up_to_a_capacity(factors):
    target = SHARES if factors is SoftmaxFactors else Grid(0.5, 255, 0, 255)
    few, most, more = (factors.from_grids(HALVES, target, count) for count in (1, 1023, 1024))
    assert few.matches(most)
    assert not most.matches(more)
    assert more.matches(factors.from_grids(HALVES, target, 65_535))


def test_factors_of_longer_rows_serve_shorter_ones():
    program = programs()
    softmax, log_softmax = program.operations
    longer = dataclasses.replace(softmax, factors=SoftmaxFactors.from_grids(HALVES, SHARES, 5000))
    dataclasses.replace(program, operations=(longer, log_softmax))


def programs():
    """A program with a masked softmax and a log-softmax."""
    builder = ProgramBuilder()
    x = builder.input("x", (2, 3), HALVES)
    mask = builder.constant("mask", torch.ones(1, 3), MASK_GRID)
    builder.output("y", builder.softmax("share", x, 2, SHARES, mask=mask))
    builder.output("z", builder.log_softmax("log", x, 2, Grid(0.5, 255, 0, 255)))
    return builder.build("tuple")


def test_is_saved_and_loaded(tmp_path):
    program = programs()
    program.save(tmp_path)
    real = torch.rand(4, 2, 3) * 20
    for before, after in zip(program(real), IntegerProgram.load(tmp_path)(real), strict=True):
        assert torch.equal(before, after)


@pytest.mark.parametrize(
    ("index", "change", "message"),
    [
        (0, {"dim": 0}, "the batch is dimension 0"),
        (0, {"dim": 3}, "the batch is dimension 0"),
        (0, {"inputs": ("x", "mask", "mask")}, "at most one mask"),
        (0, {"inputs": ("x", "x")}, "a mask is on"),
        (0, {"factors": dataclasses.replace(FACTORS, divisor_factor=FACTORS.divisor_factor + 1)}, "not SoftmaxFactors"),
        (0, {"factors": SoftmaxFactors.from_grids(SHARES, SHARES, 3)}, "not SoftmaxFactors.from_grids"),
        (1, {"dim": 0}, "the batch is dimension 0"),
        (1, {"factors": LogSoftmaxFactors.from_grids(HALVES, SHARES, 3)}, "not LogSoftmaxFactors.from_grids"),
    ],
)
def test_hostile_fields_are_refused(index, change, message):
    program = programs()
    operations = list(program.operations)
    with pytest.raises(ProgramError, match=message):
        operations[index] = dataclasses.replace(operations[index], **change)
        dataclasses.replace(program, operations=tuple(operations))


@pytest.mark.parametrize(
    "change",
    [
        lambda factors: {"exponentials": factors.exponentials + 2},
        lambda factors: {"exponentials": -factors.exponentials},
        lambda factors: {"exponentials": factors.exponentials[:-1]},
        lambda factors: {"exponentials": factors.exponentials.to(torch.int64)},
        lambda factors: {"exponentials": factors.exponentials[:0]},
        lambda factors: {"numerator_shift": factors.numerator_shift + 1},
        lambda factors: {"sum_shift": 1},
        lambda factors: {"divisor_factor": 0},
        lambda factors: {"divisor_shift": 63},
    ],
)
def test_hostile_factors_are_refused(change):
    program = programs()
    operation = program.operations[0]
    with pytest.raises(ProgramError):
        factors = dataclasses.replace(operation.factors, **change(operation.factors))
        changed = dataclasses.replace(operation, factors=factors)
        dataclasses.replace(program, operations=(changed, program.operations[1]))


def test_a_mask_that_does_not_fit_is_refused():
    with pytest.raises(ProgramError, match="broadcast"):
        softmax_of([1, 2, 3], HALVES, SHARES, [1, 1])
    with pytest.raises(ProgramError, match="it must broadcast to them"):
        softmax_of([[1, 2, 3]], HALVES, SHARES, [[1, 1, 1], [1, 1, 1]], dim=2)
