"""Makers of operations between two grids: what they fill in, and that kernel and names fit whoever calls them."""

import math

import pytest
import torch

from qat.inject.nonlinear import divide_between, normalize_between, requantize_between, softmax_between
from qat.inject.normalizations import Normalization
from qat.integer.kernels import compute
from qat.integer.operations import MASK_GRID
from qat.integer.program import Divide, LogSoftmax, Normalize, Requantize, Softmax
from qat.integer.values import Grid, float32

BYTE = Grid(0.5, 128, 0, 255)
HALVES = Grid(float32(math.log(2)), 0, 0, 255)  # a step is a factor of 2
SHARES = Grid(0.25, 0, 0, 15)
NAMES = {"name": "n", "source": "layer", "inputs": ("a", "b"), "output": "o"}


def made_by(make, codes, sources, target, clamp=None):
    operation = make(target, *(clamp or (target.quant_min, target.quant_max)), len(codes))
    return compute(operation, [torch.tensor(entry, dtype=torch.uint8) for entry in codes], sources, target).tolist()


def test_a_softmax_has_the_shares_of_its_exponentials():
    make = softmax_between(HALVES, False, 1, 3)
    assert made_by(make, ([[7, 6, 6]],), (HALVES,), SHARES) == [[2, 1, 1]]
    assert made_by(make, ([[7, 6, 6]], [[0, 1, 1]]), (HALVES, MASK_GRID), SHARES) == [[0, 2, 2]]
    assert made_by(make, ([[7, 6, 6]],), (HALVES,), SHARES, clamp=(0, 1)) == [[1, 1, 1]]


def test_a_logarithm_of_a_softmax_counts_the_halvings():
    make = softmax_between(HALVES, True, 1, 3)
    # shares of 1/2, 1/4, 1/4: one and two halvings below 1, in steps of one halving
    assert made_by(make, ([[7, 6, 6]],), (HALVES,), Grid(float32(math.log(2)), 15, 0, 15)) == [[14, 13, 13]]


def test_a_softmax_runs_over_its_dimension():
    operation = softmax_between(HALVES, False, 2, 5)(SHARES, 0, 15)
    assert isinstance(operation, Softmax)
    assert (operation.dim, operation.inputs) == (2, ("_0",))


def norm(gain=None, shift=None, centered=True):
    return Normalization((4,), 1, centered, 0.0, gain, shift)


def test_a_layer_norm_of_two_levels_is_minus_and_plus_one():
    make = normalize_between(BYTE, norm())
    assert made_by(make, ([[100, 100, 104, 104]],), (BYTE,), SIGNED := Grid(0.25, 128, 0, 255)) == [
        [124, 124, 132, 132]
    ]
    # times 2 and -2, plus half
    gain, shift = torch.tensor([2.0, 2.0, -2.0, -2.0]), torch.tensor(0.5)
    assert made_by(normalize_between(BYTE, norm(gain, shift)), ([[100, 100, 104, 104]],), (BYTE,), SIGNED) == [
        [122, 122, 122, 122]
    ]


def test_a_root_mean_square_norm_keeps_the_mean():
    # the reals are -2 and 2: each over the root of the mean square, 2
    make = normalize_between(BYTE, norm(centered=False))
    assert made_by(make, ([[124, 132, 132, 132]],), (BYTE,), Grid(0.25, 128, 0, 255)) == [[124, 132, 132, 132]]
    operation = make(Grid(0.25, 128, 0, 255), 0, 255)
    assert (operation.dims, operation.centered, operation.l2) == ((1,), False, False)


def test_statistics_run_over_the_last_dimensions_of_the_view():
    grouped = Normalization((2, 3, 4), 2, True, 1e-5, None, None)
    assert normalize_between(BYTE, grouped)(BYTE, 0, 255).dims == (2, 3)


def test_a_value_moves_to_another_grid():
    make = requantize_between(BYTE)
    # steps -2, 1 and 5 of 0.5 are -1, 0.5 and 2.5 steps of 1: ties go to the even step
    assert made_by(make, ([[126, 129, 133]],), (BYTE,), Grid(1.0, 8, 0, 15)) == [[7, 8, 10]]
    assert made_by(make, ([[126, 129, 133]],), (BYTE,), Grid(1.0, 8, 0, 15), clamp=(8, 9)) == [[8, 8, 9]]


def test_one_value_is_divided_by_another():
    # 3 / 2 and -3 / 2 in steps of a quarter; what is divided by 0 is divided by the smallest step
    make = divide_between(BYTE, BYTE)
    codes = ([[134, 122, 129]], [[132, 132, 128]])
    assert made_by(make, codes, (BYTE, BYTE), Grid(0.25, 8, 0, 15)) == [[14, 2, 12]]


@pytest.mark.parametrize(
    ("make", "kind", "operands"),
    [
        (softmax_between(HALVES, False, 1, 3), Softmax, 1),
        (softmax_between(HALVES, True, 1, 3), LogSoftmax, 1),
        (normalize_between(BYTE, norm()), Normalize, 1),
        (requantize_between(BYTE), Requantize, 1),
        (divide_between(BYTE, BYTE), Divide, 2),
    ],
)
def test_lowering_gives_names_and_the_eval_forward_gives_none(make, kind, operands):
    named = make(SHARES, 0, 15, **{**NAMES, "inputs": NAMES["inputs"][:operands]})
    assert type(named) is kind
    assert (named.name, named.source, named.output, len(named.inputs)) == ("n", "layer", "o", operands)
    unnamed = make(SHARES, 0, 15)
    assert (unnamed.inputs, unnamed.clamp_min, unnamed.clamp_max) == (("_0", "_1")[:operands], 0, 15)
