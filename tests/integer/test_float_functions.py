"""The functions of float islands: values by hand, rounding, and which calls they take."""

import math

import pytest
import torch

from qat.integer.float_functions import FLOAT_FUNCTIONS


def compute(name, *values, constants=None, **arguments):
    function = FLOAT_FUNCTIONS[name]
    tensors = dict(zip(function.tensors, (torch.tensor(value) for value in values), strict=False)) | (constants or {})
    assert function.problem({key: tensor.dim() for key, tensor in tensors.items()}, arguments) is None
    return function.compute(tensors, arguments).tolist()


@pytest.mark.parametrize(
    ("name", "values", "arguments", "expected"),
    [
        ("prod", ([[2.0, 3.0, -4.0]],), {"dim": 1}, [-24.0]),
        ("cross", ([[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]]), {"dim": 1}, [[0.0, 0.0, 1.0]]),
        ("linalg_vecdot", ([[1.0, 2.0]], [[3.0, 4.0]]), {}, [11.0]),
        ("norm", ([[3.0, 4.0]],), {"dim": 1}, [5.0]),
        ("norm", ([[1.0, -2.0, 3.0]],), {"dim": 1, "ord": 1.0}, [6.0]),
        ("linalg_matrix_norm", ([[[1.0, 2.0], [2.0, 4.0]]],), {}, [5.0]),
        ("cdist", ([[[0.0, 0.0], [3.0, 4.0]]], [[[0.0, 0.0]]]), {}, [[[0.0], [5.0]]]),
        ("cdist", ([[[0.0, 0.0], [3.0, 4.0]]], [[[0.0, 0.0]]]), {"p": 1.0}, [[[0.0], [7.0]]]),
        ("det", ([[[1.0, 2.0], [3.0, 4.0]]],), {}, [-2.0]),
        ("logsumexp", ([[0.0, 0.0]],), {"dim": 1}, [pytest.approx(math.log(2))]),
        ("rsub", ([[1.0]], [[3.0]]), {}, [[2.0]]),
        ("hardtanh", ([[-9.0, 0.5, 9.0]],), {"max_val": 2.0}, [[-1.0, 0.5, 2.0]]),
        ("fold", ([[[1.0, 2.0]]],), {"output_size": (1, 2), "kernel_size": 1}, [[[[1.0, 2.0]]]]),
    ],
)
def test_values_by_hand(name, values, arguments, expected):
    assert compute(name, *values, **arguments) == expected


def test_none_is_0_where_a_function_can_give_it():
    assert compute("log", [[-1.0, 0.0]]) == [[0.0, -math.inf]]
    assert compute("div", [[0.0, 1.0]], constants={"other": torch.zeros(2)}) == [[0.0, math.inf]]
    assert compute("pow", [[-8.0]], [[0.5]]) == [[0.0]]
    assert compute("xlogy", [[0.0, 1.0]], [[0.0, -1.0]]) == [[0.0, 0.0]]


def test_sums_are_rounded_once():
    # in float32, 1e8 + 1 is 1e8
    assert compute("sum", [[1e8, 1.0, -1e8]], dim=1) == [1.0]
    assert compute("linear", [[1e8, 1.0, -1e8]], constants={"weight": torch.ones(1, 3)}) == [[1.0]]


def test_a_softmax_leaves_out_what_its_mask_leaves_out():
    mask = {"mask": torch.tensor([[1.0, 0.0], [0.0, 0.0]])}
    assert compute("softmax", [[[5.0, 9.0], [1.0, 2.0]]], constants=mask, dim=-1) == [[[1.0, 0.0], [0.0, 0.0]]]


@pytest.mark.parametrize(
    ("name", "ranks", "arguments", "problem"),
    [
        ("cumsum", {"input": 2}, {"dim": 2}, "its dim is 2 of 2 dimensions"),
        ("mean", {"input": 3}, {"dim": (1, -3)}, "it works on the batch; keep dimension 0 for the batch alone"),
        ("mean", {"input": 3}, {}, "name its dim, since it must not work on the batch"),
        ("conv2d", {"input": 4}, {}, "its weight is missing"),
        ("conv2d", {"input": 4, "weight": 4}, {"padding": "reflect"}, "its padding is 'reflect'"),
        ("conv2d", {"input": 4, "weight": 4}, {"stride": 1.5}, "its stride is 1.5, not int or tuple"),
        ("relu", {"input": 2}, {"inplace": True}, "it has 'inplace'; it takes input"),
        ("gelu", {"input": 2}, {"approximate": "erf"}, "its approximate is 'erf'; use none or tanh"),
        ("elu", {"input": 2}, {"alpha": math.inf}, "its alpha is inf, not float"),
        ("norm", {"input": 2}, {"dim": 1, "ord": 0.0}, "its ord is 0.0; take a positive one"),
        ("linalg_matrix_norm", {"input": 3}, {"ord": "nuc"}, "its ord is 'nuc'; use 'fro'"),
        ("grid_sample", {"input": 4, "grid": 4}, {"padding_mode": "wrap"}, "use zeros, border or reflection"),
    ],
)
def test_calls_that_a_function_does_not_take_are_told(name, ranks, arguments, problem):
    assert problem in FLOAT_FUNCTIONS[name].problem(ranks, arguments)
