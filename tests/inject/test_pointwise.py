import pytest
import torch
import torch.nn.functional as F

from qat.inject.calls import Operand
from qat.inject.operations import operation_of
from qat.inject.pointwise import NONLINEAR, PLAIN, evaluate, is_pointwise

VALUE = Operand(("args", 0), ("input", "x"), None, (2, 3, 4))


def constant(*shape):
    return Operand(("args", 1), None, "c", shape)


@pytest.mark.parametrize(
    ("function", "operands", "others", "expected"),
    [
        (torch.sigmoid, [VALUE], [], True),
        (torch.add, [VALUE, constant()], [], True),
        (torch.add, [VALUE, constant(1, 1, 1)], [], True),
        (torch.add, [VALUE, constant(3, 1)], [], False),  # another number for each channel
        (torch.mul, [VALUE, VALUE], [], True),
        (torch.mul, [VALUE, Operand(("args", 1), ("call", 4, 0), None, (2, 3, 1))], [], False),
        (torch.mul, [VALUE], [torch.ones(2, 3, 4, dtype=torch.bool)], False),
        (torch.mul, [VALUE], [torch.tensor(2)], True),
        (F.prelu, [VALUE, constant(3)], [], True),  # a table for each channel
        (torch.softmax, [VALUE], [], False),
        (torch.cumsum, [VALUE], [], False),
        (torch.matmul, [VALUE, VALUE], [], False),
    ],
)
def test_what_is_a_function_of_each_element_alone(function, operands, others, expected):
    assert is_pointwise(operation_of(function), operands, others) is expected


def test_no_operation_is_both_plain_and_not():
    assert not NONLINEAR & PLAIN


def test_results_for_every_code_are_those_of_the_function_in_float64():
    points = torch.linspace(-3, 3, 7, dtype=torch.float64)
    assert evaluate("sigmoid", torch.sigmoid, (points,), {}).tolist() == [1 / (1 + torch.exp(-x)) for x in points]
    assert evaluate("add", torch.add, (points, 1.5), {"alpha": 2}).tolist() == [0, 1, 2, 3, 4, 5, 6]
    leaky = evaluate("prelu", F.prelu, (points, torch.tensor([0.5])), {})
    assert leaky.tolist() == [-1.5, -1, -0.5, 0, 1, 2, 3]


def test_a_slope_for_each_channel_gives_a_row_for_each():
    points = torch.tensor([-2.0, 0.0, 1.0], dtype=torch.float64)
    rows = evaluate("prelu", F.prelu, (points,), {"weight": torch.tensor([0.25, -1.0])})
    assert rows.tolist() == [[-0.5, 0, 1], [2, 0, 1]]
