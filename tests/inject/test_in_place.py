"""Writes in place become calls that leave their operands alone, or are refused with their place."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qat.errors import PreparationError
from qat.inject.in_place import OwnMemory, rewritten, writes_values
from qat.inject.operations import kind_of, operation_of


def writes(function, *args, **kwargs):
    operation = operation_of(function)
    return writes_values(operation, kind_of(operation, args, kwargs), function, args, kwargs)


def rewritten_call(function, *args, own=None, **kwargs):
    return rewritten(operation_of(function), function, args, kwargs, "encoder at net.py:3", own)


@pytest.mark.parametrize("function", [Tensor.add_, Tensor.mul_, Tensor.relu_, Tensor.copy_])
def test_methods_that_end_in_an_underscore_write_their_tensor(function):
    assert writes(function, torch.ones(2), torch.ones(2))


def test_what_writes_elsewhere_or_no_values_is_none():
    x = torch.ones(2)
    assert not writes(torch.add, x, x)
    assert not writes(Tensor.requires_grad_, x)
    assert not writes(Tensor.add_, torch.ones(2, dtype=torch.long), 1)
    assert not writes(F.relu, x)
    assert writes(F.relu, x, inplace=True)
    assert writes(torch.add, x, x, out=torch.empty(2))


def test_the_call_leaves_its_operand_alone():
    x = torch.tensor([1.0, -2.0])
    for function, others, expected in [
        (Tensor.add_, (torch.tensor([3.0, 3.0]),), [4.0, 1.0]),
        (Tensor.relu_, (), [1.0, 0.0]),
        (Tensor.__setitem__, (0, torch.tensor(7.0)), [7.0, -2.0]),
    ]:
        instead, args, kwargs = rewritten_call(function, x, *others)
        assert instead(*args, **kwargs).tolist() == expected
        assert x.tolist() == [1.0, -2.0]


def test_a_write_that_no_function_follows_is_refused_with_its_place():
    with pytest.raises(PreparationError, match=r"setitem in encoder at net\.py:3 writes in place, which .*torch\.cat"):
        rewritten_call(Tensor.__setitem__, torch.ones(2), torch.tensor([1, 0]), torch.ones(2))


def test_a_write_into_a_parameter_or_buffer_is_refused_by_its_name():
    with pytest.raises(PreparationError, match=r"add in encoder at net\.py:3 writes in place into running_mean, which"):
        rewritten_call(Tensor.add_, torch.ones(2), 1.0, own="running_mean")


def test_memory_is_known_by_its_parameter_or_buffer_and_views_into_it_are():
    norm = nn.BatchNorm1d(3)
    memory = OwnMemory(norm)
    assert memory.holds(norm.running_mean) == "running_mean"
    assert memory.holds(norm.weight.detach()[1:]) == "weight"
    assert memory.holds(torch.ones(3)) is None
    assert memory.holds(None) is None
