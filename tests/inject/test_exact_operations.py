"""Operations without weights in eval mode: the whole number that each computes, and the code that it becomes."""

import math

import pytest
import torch
import torch.nn.functional as F

from qat.inject.exact_kernels import Computed
from qat.inject.exact_operations import accumulate
from qat.inject.masks import masked
from qat.inject.operations import operation_of
from qat.integer.values import Grid, float32

HALF = Grid(0.5, 8, 0, 15)  # reals -4 .. 3.5
QUARTER = Grid(0.25, 8, 0, 15)  # reals -2 .. 1.75
FIRST, SECOND = ("args", 0), ("args", 1)
X = torch.tensor([[-4.0, -0.5, 0.5, 3.5]])
Y = torch.tensor([[0.25, -0.25, 1.75, -2.0]])


def codes(function, *args, grids, target=HALF, **kwargs):
    """The real values that the code of a call stands for, on `target`."""
    operation = operation_of(function)
    result = function(*args, **kwargs)
    made = accumulate(operation, function, args, kwargs, result, {**grids, None: target})
    if made is None:
        return None
    result, accumulator = made
    return accumulator.quantize(result, target).tolist()


@pytest.mark.parametrize(
    ("function", "args", "grids", "expected"),
    [
        # -3.75 and -0.75 are ties of half steps, to the even code; 2.25 is one, to code 12; 1.5
        (torch.add, (X, Y), {FIRST: HALF, SECOND: QUARTER}, [[-4.0, -1.0, 2.0, 1.5]]),
        (torch.sub, (X, Y), {FIRST: HALF, SECOND: QUARTER}, [[-4.0, 0.0, -1.0, 3.5]]),
        (torch.mul, (X, Y), {FIRST: HALF, SECOND: QUARTER}, [[-1.0, 0.0, 1.0, -4.0]]),
        (torch.add, (X, 1.0), {FIRST: HALF}, [[-3.0, 0.5, 1.5, 3.5]]),
        (torch.sub, (X, 1.0), {FIRST: HALF}, [[-4.0, -1.5, -0.5, 2.5]]),
        (torch.mul, (X, -0.5), {FIRST: HALF}, [[2.0, 0.0, 0.0, -2.0]]),
        (torch.div, (X, 2.0), {FIRST: HALF}, [[-2.0, 0.0, 0.0, 2.0]]),
        (torch.mul, (0.5, X), {SECOND: HALF}, [[-2.0, 0.0, 0.0, 2.0]]),
        (torch.div, (Y, X), {FIRST: QUARTER, SECOND: HALF}, [[0.0, 0.5, 3.5, -0.5]]),
        (torch.sum, (X, 1), {FIRST: HALF}, [-0.5]),
        (torch.mean, (X, 1), {FIRST: HALF}, [0.0]),
        (F.relu, (X,), {FIRST: HALF}, [[0.0, 0.0, 0.5, 3.5]]),
        (torch.clamp, (X, -1.2, 0.7), {FIRST: HALF}, [[-1.0, -0.5, 0.5, 0.5]]),
        (F.avg_pool1d, (X, 2), {FIRST: HALF}, [[-2.0, 2.0]]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_codes_of_hand_written_values(function, args, grids, expected):
    assert codes(function, *args, grids=grids) == expected


def test_a_product_of_matrices_is_one_of_codes():
    first, second = X.reshape(2, 2), Y.reshape(2, 2)
    # [[-4, -.5], [.5, 3.5]] @ [[.25, -.25], [1.75, -2]] = [[-1.875, 2], [6.25, -7.125]]
    expected = [[-2.0, 2.0], [3.5, -4.0]]
    assert codes(torch.matmul, first, second, grids={FIRST: HALF, SECOND: QUARTER}) == expected


def test_keywords_in_any_order_are_the_same_operands():
    grids = {("kwargs", "other"): QUARTER, ("kwargs", "input"): HALF}
    assert codes(torch.div, other=X, input=Y, grids={("kwargs", "input"): QUARTER, ("kwargs", "other"): HALF}) == [
        [0.0, 0.5, 3.5, -0.5]
    ]
    assert codes(torch.mul, other=Y, input=X, grids=grids) == [[-1.0, 0.0, 1.0, -4.0]]


HALVINGS = Grid(float32(math.log(2)), 15, 0, 15)  # a step is a factor of 2
SHARES = Grid(0.25, 0, 0, 15)


def test_a_softmax_leaves_out_what_is_masked():
    scores = -math.log(2) * torch.tensor([[0.0, 1.0, 1.0]])
    assert codes(torch.softmax, scores, 1, grids={FIRST: HALVINGS}, target=SHARES) == [[0.5, 0.25, 0.25]]
    hidden = masked(scores, torch.tensor([[True, False, False]]))
    assert codes(torch.softmax, hidden, -1, grids={FIRST: HALVINGS}, target=SHARES) == [[0.0, 0.5, 0.5]]


def test_a_norm_runs_its_integer_kernel():
    x = torch.tensor([[-2.0, -2.0, 2.0, 2.0]])
    assert codes(F.layer_norm, x, (4,), grids={FIRST: HALF}) == [[-1.0, -1.0, 1.0, 1.0]]
    made = accumulate(operation_of(F.rms_norm), F.rms_norm, (x, (4,)), {}, x, {FIRST: HALF, None: HALF})
    assert isinstance(made[1], Computed)


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "grids"),
    [
        (torch.add, (X, Y), {"alpha": 2}, {FIRST: HALF, SECOND: QUARTER}),
        (torch.div, (X, 2.0), {"rounding_mode": "floor"}, {FIRST: HALF}),
        (torch.add, (X, Y), {}, {FIRST: HALF}),  # the other has no grid
        (torch.cumprod, (X, 1), {}, {FIRST: HALF}),
        (torch.add, (X, 1.0), {}, {}),
        (F.instance_norm, (X[None], torch.zeros(1), torch.ones(1)), {"use_input_stats": False}, {FIRST: HALF}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_has_no_whole_number_is_left_to_floats(function, args, kwargs, grids):
    assert codes(function, *args, grids=grids, **kwargs) is None
