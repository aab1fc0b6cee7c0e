"""Normalization: written-out numbers, and the float64 function rounded to the grid."""

import dataclasses
import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qat.errors import ProgramError
from qat.integer.builder import ProgramBuilder
from qat.integer.interpreter import run
from qat.integer.kernels.normalize import integer_root
from qat.integer.operations import NormalizeFactors
from qat.integer.program import IntegerProgram
from qat.integer.values import Grid, float32

ONES = Grid(1.0, 0, -128, 127)
HALVES = Grid(0.5, 0, -128, 127)
TENTHS = Grid(float32(0.1), 0, -128, 127)
KINDS = {"layer": {"centered": True}, "rms": {"centered": False}, "l2": {"centered": False, "l2": True}}


def normalized(codes, source, target, dims=(1,), **settings):
    """Output codes for one sample of codes (nested lists, without the batch)."""
    builder = ProgramBuilder()
    codes = torch.as_tensor(codes)
    x = builder.input("x", tuple(codes.shape), source)
    builder.output("y", builder.normalize("y", x, dims, target, **settings))
    return run(builder.build(), {"x": codes[None].to(source.dtype)})["y"][0]


def reals(codes, source, dims, kind, epsilon, gain, shift):
    """The float64 function of codes (N, ...)."""
    x = (codes.to(torch.float64) - source.zero_point) * source.scale
    if kind == "l2":
        normal = x / x.square().sum(dims, keepdim=True).sqrt().clamp(min=epsilon)
    elif kind == "layer":
        centered = x - x.mean(dims, keepdim=True)
        normal = centered / (centered.square().mean(dims, keepdim=True) + epsilon).sqrt()
    else:
        normal = x / (x.square().mean(dims, keepdim=True) + epsilon).sqrt()
    return normal * gain + shift


def test_a_layer_norm_by_hand():
    # mean 3, deviations -2 and 2, variance 4
    assert normalized([1, 5], ONES, HALVES).tolist() == [-2, 2]
    # mean 1, deviations 3 and -1, variance 3: the root of 3 is 1.732
    assert normalized([4, 0, 0, 0], ONES, TENTHS).tolist() == [17, -6, -6, -6]


def test_an_rms_norm_by_hand():
    # mean square 25: [1, 7] / 5
    assert normalized([1, 7], ONES, TENTHS, centered=False).tolist() == [2, 14]
    affine = Grid(1.0, 10, 0, 255)
    assert normalized([11, 17], affine, TENTHS, centered=False).tolist() == [2, 14]


def test_an_l2_norm_by_hand():
    assert normalized([3, 4], ONES, TENTHS, centered=False, l2=True, epsilon=1e-12).tolist() == [6, 8]
    # a norm of 5 counts as 10
    assert normalized([3, 4], ONES, TENTHS, centered=False, l2=True, epsilon=10.0).tolist() == [3, 4]


def test_epsilon_counts():
    # variance 4 and 12 more: deviations by 4
    assert normalized([1, 5], ONES, TENTHS, epsilon=12.0).tolist() == [-5, 5]


def test_gain_and_shift():
    gain, shift = torch.tensor([2.0, -2.0, 0.0]), torch.tensor([0.5, 0.5, 0.3])
    # deviations -1, 1, 0 by the root of 2/3
    assert normalized([1, 3, 2], ONES, TENTHS, gain=gain, shift=shift).tolist() == [-19, -19, 3]
    assert normalized([1, 3, 2], ONES, Grid(float32(0.1), 5, -128, 127), gain=gain, shift=shift).tolist() == [
        -14,
        -14,
        8,
    ]


def test_dimensions_and_gains_per_channel():
    codes = [[[1, 5], [1, 5]], [[10, 10], [10, 18]]]
    gain = torch.tensor([1.0, 2.0]).reshape(2, 1, 1)
    # deviations by 2; deviations -2, -2, -2, 6 by the root of 12
    expected = [[[-10, 10], [-10, 10]], [[-12, -12], [-12, 35]]]
    assert normalized(codes, ONES, TENTHS, (2, 3), gain=gain).tolist() == expected


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_equal_codes_give_the_shift(kind):
    settings = KINDS[kind] | {"epsilon": 0.0, "shift": torch.tensor(0.7)}
    assert normalized([[0] * 5, [0] * 5], ONES, TENTHS, (2,), **settings).tolist() == [[7] * 5] * 2
    if kind == "layer":
        assert normalized([[-128] * 5, [127] * 5], ONES, TENTHS, (2,), **settings).tolist() == [[7] * 5] * 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("gain", [0.0, 1e-30, -1e-30])
def test_a_gain_of_nothing_gives_the_shift_for_any_row(kind, gain):
    codes = [[0] * 767 + [127], [-128] * 767 + [127], list(range(-128, 128)) * 3]
    settings = KINDS[kind] | {"gain": torch.tensor(gain), "shift": torch.tensor(0.7)}
    assert normalized(codes, ONES, TENTHS, (2,), **settings).unique().tolist() == [7]


def test_clamps():
    assert normalized([1, 5], ONES, HALVES, clamp=(0, 1)).tolist() == [0, 1]


@given(
    kind=st.sampled_from(list(KINDS)),
    count=st.sampled_from([1, 2, 3, 16, 768, 20000]),
    scale=st.floats(1e-6, 10.0).map(float32),
    bits=st.sampled_from([2, 4, 8]),
    step=st.floats(2.0**-8, 1.0),
    epsilon=st.sampled_from([0.0, 1e-12, 1e-5, 1.0]),
    strength=st.sampled_from([0.01, 1.0, 30.0]),
    seed=st.integers(0, 2**31),
)
@settings(deadline=None, max_examples=150)
@example("layer", 768, 1.0, 8, 0.2, 1e-5, 1.0, 0)
def test_is_the_float64_function_rounded_to_the_grid(kind, count, scale, bits, step, epsilon, strength, seed):
    # step: in gains, so that the output holds results of half a deviation or more
    source, target = Grid(scale, 1, 0, 2**bits - 1), Grid(float32(step * strength), 3, -128, 127)
    generator = torch.Generator().manual_seed(seed)
    gain = torch.randn(count, generator=generator).double() * strength
    shift = torch.randn(count, generator=generator).double() * strength
    spread = torch.rand(8, 1, generator=generator) ** 2 * 2**bits
    codes = (torch.randn(8, count, generator=generator) * spread + 2 ** (bits - 1)).round().clamp(0, 2**bits - 1)
    settings = KINDS[kind] | {"epsilon": epsilon, "gain": gain, "shift": shift}
    actual = normalized(codes, source, target, (2,), **settings).to(torch.int64)
    real = reals(codes, source, (1,), kind, epsilon, gain, shift) / target.scale
    if not epsilon:  # 0 over 0, which in float64 is NaN or what rounding left
        level = codes[:, :1] if kind == "layer" else source.zero_point
        real = torch.where((codes == level).all(1, keepdim=True), shift / target.scale, real)
    expected = ((real + 0.5).floor().clamp(-1000, 1000) + 3).clamp(-128, 127).to(torch.int64)
    wrong = actual != expected
    # A code may only come out differently where the real one lies next to a tie, and then by one.
    assert (actual - expected).abs().max() <= 1
    assert ((real - 0.5 - (real - 0.5).round()).abs()[wrong] < 2.0**-5).all()


@pytest.mark.parametrize("kind", KINDS)
def test_wide_codes(kind):
    source, target = Grid(float32(0.0005), 3, -(2**15), 2**15 - 1), Grid(float32(0.0002), 3, -(2**15), 2**15 - 1)
    codes = (torch.randn(50, 300, generator=torch.Generator().manual_seed(0)) * 5000).round().clamp(-(2**15), 2**15 - 1)
    actual = normalized(codes, source, target, (2,), **KINDS[kind]).to(torch.int64)
    real = reals(codes, source, (1,), kind, 1e-5, 1.0, 0.0) / target.scale
    expected = ((real + 0.5).floor() + 3).clamp(-(2**15), 2**15 - 1).to(torch.int64)
    assert (actual - expected).abs().max() <= 1 and (actual != expected).float().mean() < 1e-3


@given(st.one_of(st.integers(1, 2**62), st.integers(1, 2**31).map(lambda root: root * root)))
@example(1)
@example(2)
@example(3)
@example(2**62)
@example(2**62 - 1)
def test_integer_roots_are_rounded_down_or_up(number):
    root = int(integer_root(torch.tensor([number])))
    assert root in (math.isqrt(number), math.isqrt(number) + 1)


def test_the_root_of_zero_can_be_divided_by():
    assert integer_root(torch.tensor([0])).tolist() == [1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 2, 197, 2**14, 2**14 + 1, 2**20])
@pytest.mark.parametrize("bits", [2, 8])
def test_programs_with_any_count_pass_the_checks(kind, count, bits):
    builder = ProgramBuilder()
    x = builder.input("x", (count,), Grid(float32(1e-3), 0, 0, 2**bits - 1))
    builder.output("y", builder.normalize("y", x, (1,), HALVES, **KINDS[kind], gain=torch.tensor([3.0])))
    builder.build()


def test_more_than_int64_holds_is_refused():
    with pytest.raises(ProgramError, match="leaves int64"):
        NormalizeFactors.from_grids(Grid(1.0, 0, 0, 2**16 - 1), HALVES, 2**20, centered=True, epsilon=0.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_gains_that_are_no_numbers_are_refused(bad):
    with pytest.raises(ProgramError, match="NaN or infinite"):
        normalized([1, 2], ONES, HALVES, gain=torch.tensor([1.0, bad]))


def program():
    """A layer norm of 4 elements."""
    builder = ProgramBuilder()
    x = builder.input("x", (2, 4), ONES)
    builder.output("y", builder.normalize("y", x, (2,), HALVES, gain=torch.tensor([1.0, -2.0, 0.0, 3.0])))
    return builder.build()


def test_is_saved_and_loaded(tmp_path):
    program().save(tmp_path)
    real = torch.randn(4, 2, 4) * 20
    assert torch.equal(IntegerProgram.load(tmp_path)(real), program()(real))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dims": (0,)}, "the batch"),
        ({"dims": ()}, "name each once"),
        ({"dims": (1,)}, "count 4, but its dimensions ask for 2"),
        ({"dims": (1, 2)}, "ask for 8"),
        ({"l2": True}, "choose one"),
        ({"l2": True, "centered": False}, "ask for 1"),
    ],
)
def test_hostile_fields_are_refused(change, message):
    with pytest.raises(ProgramError, match=message):
        changed = dataclasses.replace(program().operations[0], **change)
        dataclasses.replace(program(), operations=(changed,))


@pytest.mark.parametrize(
    "change",
    [
        lambda factors: {"count": 5},
        lambda factors: {"root_shift": -1},
        lambda factors: {"root_shift": 40},
        lambda factors: {"quotient_shift": factors.quotient_shift + 2},
        lambda factors: {"quotient_shift": 2**40},
        lambda factors: {"quotient_shift": 0},
        lambda factors: {"epsilon": -1},
        lambda factors: {"epsilon": 2**63 - 1},
        lambda factors: {"divisors": factors.divisors * 0},
        lambda factors: {"divisors": factors.divisors[:3]},
        lambda factors: {"divisors": factors.divisors.to(torch.int32)},
        lambda factors: {"divisors": factors.divisors * 2**20},
        lambda factors: {"offsets": factors.offsets - 2**30},
        lambda factors: {"offsets": factors.offsets + 2**31},
        lambda factors: {"bases": factors.bases + 2**31},
        lambda factors: {key: getattr(factors, key).repeat(2) for key in ("divisors", "offsets", "bases")},
    ],
)
def test_hostile_factors_are_refused(change):
    operation = program().operations[0]
    with pytest.raises(ProgramError):
        factors = dataclasses.replace(operation.factors, **change(operation.factors))
        dataclasses.replace(program(), operations=(dataclasses.replace(operation, factors=factors),))
