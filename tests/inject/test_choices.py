"""Numbers that values are chosen from: which of them stand on a grid, and what takes their place."""

import math

import pytest
import torch

from qat.inject.choices import is_value_sized, unsized_number, with_constants
from qat.inject.operations import Kind, Operation

WHERE, FILL = Operation("where", Kind.JOIN), Operation("masked_fill", Kind.JOIN)
X, MASK = torch.ones(2, 3, dtype=torch.float64), torch.ones(2, 3, dtype=torch.bool)


def test_large_numbers_mean_left_out():
    assert is_value_sized(-5) and is_value_sized(59_999.0)
    assert not any(map(is_value_sized, (6e4, -1e9, -math.inf, math.nan, None, X)))


@pytest.mark.parametrize(
    ("operation", "args", "kwargs", "slot"),
    [
        (WHERE, (MASK, X, 0.5), {}, ("args", 2)),
        (WHERE, (MASK, 0.5, X), {}, ("args", 1)),
        (WHERE, (MASK,), {"input": X, "other": 0.5}, ("kwargs", "other")),
        (FILL, (X, MASK, 0.5), {}, ("args", 2)),
        (FILL, (X,), {"mask": MASK, "value": 0.5}, ("kwargs", "value")),
    ],
)
def test_a_number_becomes_a_constant_of_the_values_type(operation, args, kwargs, slot):
    changed, named, made = with_constants(operation, args, kwargs)
    (constant,) = made
    assert (constant.shape, constant.dtype, constant.item()) == ((), torch.float64, 0.5)
    assert (changed[slot[1]] if slot[0] == "args" else named[slot[1]]) is constant
    assert unsized_number(operation, args, kwargs) is None


def test_what_is_left_out_stays_a_number_and_is_named():
    args = (X, MASK, -math.inf)
    assert with_constants(FILL, args, {}) == (args, {}, [])
    assert unsized_number(FILL, args, {}) == -math.inf
    assert unsized_number(WHERE, (MASK, X, 1e9), {}) == 1e9


def test_other_operations_choose_from_no_numbers():
    args = (X, 0.5, 1e9)
    assert with_constants(Operation("add", Kind.COMPUTE), args, {}) == (args, {}, [])
    assert unsized_number(Operation("add", Kind.COMPUTE), args, {}) is None
