"""Arguments of calls: where tensors stand in them, what takes their place, and which calls count."""

import pytest
import torch

from qat.inject.calls import (
    Call,
    Operand,
    has_slot,
    is_counted,
    makes_real,
    operand_at,
    output_tensors,
    substitute,
    tensor_slots,
    with_operand,
)
from qat.inject.operations import Kind, Operation

X, Y, IDS = torch.ones(2), torch.zeros(2), torch.tensor([1])
ARGS, KWARGS = (X, 3, [Y, None, IDS]), {"weight": Y, "parts": (X, IDS), "dim": 1}


def test_every_tensor_has_a_slot():
    found = [(slot, id(tensor)) for slot, tensor in tensor_slots(ARGS, KWARGS)]
    assert found == [
        (("args", 0), id(X)), (("args", 2, 0), id(Y)), (("args", 2, 2), id(IDS)),
        (("kwargs", "weight"), id(Y)), (("kwargs", "parts", 0), id(X)), (("kwargs", "parts", 1), id(IDS)),
    ]  # fmt: skip
    assert all(operand_at(ARGS, KWARGS, slot) is tensor for slot, tensor in tensor_slots(ARGS, KWARGS))


def test_a_slot_is_there_or_not():
    assert has_slot(ARGS, KWARGS, ("args", 2)) and has_slot(ARGS, KWARGS, ("kwargs", "dim"))
    assert not has_slot(ARGS, KWARGS, ("args", 3)) and not has_slot(ARGS, KWARGS, ("kwargs", "bias"))


@pytest.mark.parametrize("slot", [slot for slot, _ in tensor_slots(ARGS, KWARGS)])
def test_another_operand_takes_one_slot_and_leaves_the_arguments_alone(slot):
    other = torch.full((2,), 7.0)
    args, kwargs = with_operand(ARGS, KWARGS, slot, other)
    changed = [place for place, tensor in tensor_slots(args, kwargs) if tensor is other]
    assert changed == [slot]
    assert (type(args[2]), type(kwargs["parts"])) == (list, tuple)
    assert ARGS[0] is X and ARGS[2][0] is Y and KWARGS["weight"] is Y and KWARGS["parts"][0] is X


def test_what_was_written_stands_for_what_it_was_written_to_however_often():
    first, second = torch.ones(1), torch.ones(1)
    args, kwargs = substitute({id(X): first, id(first): second}, ARGS, KWARGS)
    assert args[0] is second and kwargs["parts"][0] is second
    assert args[2][0] is Y and args[1] == 3


def test_results_of_real_numbers_are_outputs():
    assert output_tensors(X) == [X] and output_tensors(IDS) == [] and output_tensors(3) == []
    values, indices = torch.max(torch.ones(2, 2), 1)
    assert [tensor is values for tensor in output_tensors((values, indices, None))] == [True]


@pytest.mark.parametrize(
    ("kind", "args", "kwargs", "counts"),
    [
        (Kind.COMPUTE, (X,), {}, True),
        (Kind.COMPUTE, (3, [X]), {}, True),
        (Kind.COMPUTE, (IDS,), {"other": X}, True),
        (Kind.COMPUTE, (IDS,), {}, False),
        (Kind.JOIN, ([IDS, IDS],), {}, False),
        (Kind.PASS, (X,), {}, False),
        (Kind.IGNORE, (X,), {}, False),
        (Kind.CAST, (IDS,), {}, True),
    ],
)
def test_what_computes_with_real_numbers_counts(kind, args, kwargs, counts):
    assert is_counted(kind, args, kwargs) is counts


def test_a_computation_with_integers_may_make_real_values():
    assert makes_real(Kind.COMPUTE, (1.0, IDS), {}, X)
    assert not makes_real(Kind.COMPUTE, (IDS,), {}, IDS)
    assert not makes_real(Kind.COMPUTE, (3,), {}, X)  # a constant
    assert not makes_real(Kind.PASS, (IDS,), {}, X)


def call(*operands):
    by_slot = {}
    for operand in operands:
        by_slot.setdefault(operand.slot, set()).add(operand)
    return Call(0, Operation("add", Kind.COMPUTE), Kind.COMPUTE, "add", "", ("add",), "file:1", by_slot)


def test_values_and_constants_of_a_call():
    value = Operand(("args", 0), ("input", "x"), None, (2, 3))
    constant = Operand(("args", 1), None, "weight", (3,))
    assert list(call(value, constant).values()) == [("input", "x")]
    assert list(call(value, constant).constants()) == [constant]
    assert call(value, constant).alternating() == {}


def test_a_slot_that_holds_a_constant_first_and_a_value_later_alternates():
    first = Operand(("args", 1), None, "", (2, 3))
    later = Operand(("args", 1), ("call", 4, 0), None, (2, 3))
    assert call(first, later).alternating() == {("args", 1): ("call", 4, 0)}
