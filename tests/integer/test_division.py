"""Division of codes: written-out numbers, and the float64 quotient rounded to the grid."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qat.errors import ProgramError
from qat.integer.builder import ProgramBuilder
from qat.integer.interpreter import run
from qat.integer.operations import Ratio
from qat.integer.program import IntegerProgram
from qat.integer.values import Grid, float32

ONES = Grid(1.0, 0, -128, 127)
SCALES = st.floats(2.0**-20, 2.0**20).map(float32)


def program(first, second, target, shapes=((256, 1), (1, 256)), **settings):
    """A program that divides its two inputs."""
    builder = ProgramBuilder()
    x, z = builder.input("x", shapes[0], first), builder.input("z", shapes[1], second)
    builder.output("y", builder.divide("y", x, z, target, **settings))
    return builder.build()


def quotients(first, second, source, divisor, target, **settings):
    """Output codes of lists of codes."""
    made = program(source, divisor, target, ((len(first),), (len(second),)), **settings)
    codes = {"x": torch.tensor([first], dtype=source.dtype), "z": torch.tensor([second], dtype=divisor.dtype)}
    return run(made, codes)["y"][0].tolist()


def test_quotients_by_hand():
    assert quotients([12, -12, 7, 127], [4, 5, -2, 1], ONES, ONES, ONES) == [3, -2, -4, 127]
    # codes less their zero points by 0.25 / (2 * 0.5): 5, 0 and -2.5
    affine = Grid(0.25, 10, 0, 255)
    assert quotients([90, 10, 0], [4, 4, 1], affine, Grid(2.0, 0, 0, 255), Grid(0.5, 5, 0, 255)) == [10, 5, 2]


def test_ties_are_away_from_zero():
    assert quotients([1, -1, 1, -1, 3], [2, 2, -2, -2, 2], ONES, ONES, ONES) == [1, -1, -1, 1, 2]


def test_a_divisor_of_zero_is_its_smallest_step():
    assert quotients([5, -5, 0], [0, 0, 0], ONES, ONES, ONES) == [5, -5, 0]
    assert quotients([5, 9], [3, 4], ONES, Grid(1.0, 3, 0, 7), ONES) == [5, 9]


def test_clamps():
    assert quotients([12, -12, 7], [4, 5, -2], ONES, ONES, ONES, clamp=(0, 2)) == [2, 0, 0]


@given(first=SCALES, second=SCALES, output=SCALES, zeros=st.tuples(*[st.integers(0, 255)] * 3))
@settings(deadline=None, max_examples=100)
def test_every_quotient_is_the_float64_one_rounded_to_the_grid(first, second, output, zeros):
    first, second, output = (
        Grid(scale, zero_point, 0, 255) for scale, zero_point in zip((first, second, output), zeros, strict=True)
    )
    codes = torch.arange(256).to(torch.uint8)
    actual = run(program(first, second, output), {"x": codes.reshape(1, -1, 1), "z": codes.reshape(1, 1, -1)})["y"][0]
    divisors = codes.double() - second.zero_point
    divisors[divisors == 0] = 1
    real = (codes.double() - first.zero_point)[:, None] * first.scale / (divisors * second.scale) / output.scale
    expected = (real.sign() * (real.abs() + 0.5).floor() + output.zero_point).clamp(0, 255).to(torch.int64)
    wrong = actual.to(torch.int64) != expected
    assert (actual.to(torch.int64) - expected).abs().max() <= 1
    assert ((real.abs() - 0.5 - (real.abs() - 0.5).round()).abs()[wrong] < 2.0**-8).all()


@pytest.mark.parametrize("scales", [(2.0**-126, 2.0**126, 2.0**126), (2.0**126, 2.0**-126, 2.0**-126), (1.0, 1.0, 1.0)])
@pytest.mark.parametrize("bits", [8, 16])
def test_nothing_leaves_the_integers_it_is_made_in(scales, bits):
    grids = [Grid(scale, 0, 0, 2**bits - 1) for scale in scales]
    ratio, code = Ratio.from_grids(*grids), 2**bits - 1
    assert ratio.numerator >= 1 and ratio.shift >= 0
    assert code * ratio.numerator + (code << ratio.shift) // 2 < (2**31 if bits == 8 else 2**63)


def test_is_saved_and_loaded(tmp_path):
    before = program(ONES, ONES, ONES, ((3,), (3,)))
    before.save(tmp_path)
    real = (torch.randn(4, 3) * 50, torch.randn(4, 3) * 5)
    assert torch.equal(IntegerProgram.load(tmp_path)(real), before(real))


@pytest.mark.parametrize("ratio", [Ratio(0, 0), Ratio(-1, 3), Ratio(2**40, 3), Ratio(1, 80)])
def test_hostile_ratios_are_refused(ratio):
    before = program(ONES, ONES, ONES, ((3,), (3,)))
    with pytest.raises(ProgramError, match="not Ratio.from_grids"):
        dataclasses.replace(before, operations=(dataclasses.replace(before.operations[0], ratio=ratio),))
