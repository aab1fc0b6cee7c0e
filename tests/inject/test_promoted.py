"""Integers that meet real values in arithmetic become real numbers in a call of their own."""

import pytest
import torch
from torch import Tensor, nn

import qat
from qat.inject.operations import Kind
from qat.inject.promoted import with_real_operands
from qat.inject.record import record

X, MASK = torch.tensor([[0.5, -1.5]]), torch.tensor([[1, 0]])


@pytest.mark.parametrize("function", [torch.mul, Tensor.add, Tensor.__rsub__, torch.div, Tensor.mul_])
def test_a_tensor_of_integers_beside_a_real_one_is_converted(function):
    converted = with_real_operands(function, (X.clone(), MASK), {})
    result = converted(X.clone(), MASK)
    assert result.dtype == torch.float32
    assert torch.equal(result, function(X.clone(), MASK.float()))


def test_the_quotient_of_two_tensors_of_integers_is_real():
    converted = with_real_operands(torch.div, (MASK, MASK + 1), {})
    assert converted(MASK, MASK + 1).tolist() == [[0.5, 0.0]]


def test_a_real_number_leaves_the_integers_the_default_type():
    number = torch.tensor(0.5, dtype=torch.float64)
    assert with_real_operands(torch.mul, (number, MASK), {})(number, MASK).dtype == torch.get_default_dtype()


@pytest.mark.parametrize(
    ("function", "args", "kwargs"),
    [
        (torch.mul, (X, X), {}),
        (torch.mul, (X, 2), {}),
        (torch.mul, (MASK, 2), {}),
        (torch.mul, (MASK, MASK), {}),
        (torch.mul, (X, torch.tensor(2)), {}),  # a number, which needs no grid
        (torch.div, (X, MASK), {"rounding_mode": "floor"}),
        (torch.matmul, (X, X), {}),
        (torch.where, (MASK > 0, X, X), {}),
        (torch.mul, (X + 0j, MASK), {}),
    ],
)
def test_everything_else_stays_what_it_is(function, args, kwargs):
    assert with_real_operands(function, args, kwargs) is None


class Pooled(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 4)

    def forward(self, x, mask):
        return (self.layer(x) * mask[..., None]).sum(1)


def test_the_conversion_is_a_call_of_its_own_with_a_quantizer():
    x, mask = torch.randn(4, 5, 3), torch.ones(4, 5, dtype=torch.long)
    calls = record(Pooled(), (x, mask), {}).calls.values()
    assert [(call.operation.name, call.kind) for call in calls] == [
        ("linear", Kind.COMPUTE),
        ("to", Kind.CAST),
        ("mul", Kind.COMPUTE),
        ("sum", Kind.COMPUTE),
    ]
    handle = qat.prepare(Pooled(), (x, mask))
    assert {"to.output", "mul.output", "sum.output"} <= set(handle.quantizers)


def test_compiled_code_converts_as_well():
    network, x = Pooled(), torch.randn(4, 5, 3)
    mask = torch.tensor([[1, 1, 1, 0, 0]]).repeat(4, 1)
    qat.prepare(network, (x, mask))
    network(x, mask)
    expected = network(x, mask)
    assert torch.allclose(torch.compile(network, backend="eager")(x, mask), expected)
