"""What lowering would refuse for its arguments is refused before training."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qat
from qat.errors import PreparationError
from qat.inject.arguments import reason_against_rounding
from qat.inject.operations import operation_of


class Network(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.first, self.body = nn.Conv2d(3, 4, 3, padding=1), body

    def forward(self, x):
        return self.body(F.relu(self.first(x)))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (lambda x: x.div(x.mean(1, keepdim=True) + 9, rounding_mode="floor"), "rounding_mode='floor' cuts values off"),
        (lambda x: x[:, torch.tensor([True, False, True, False])], "a mask as an index, .*torch.where"),
        (lambda x: x.masked_fill(x > 0, -1e9), "masked_fill in .*-1000000000.0 has no code beside values"),
        (lambda x: F.pad(x, (1, 1), value=torch.inf), "padding with inf, which has no code beside values"),
    ],
)
def test_arguments_without_an_integer_form_are_refused_with_the_remedy(body, message):
    with pytest.raises(PreparationError, match=message):
        qat.prepare(Network(body), torch.randn(2, 3, 8, 8))
    qat.prepare(Network(body), torch.randn(2, 3, 8, 8), target=None)


@pytest.mark.parametrize(
    "body",
    [
        nn.AvgPool2d(2, count_include_pad=False),
        nn.AvgPool2d(3, 2, 1),
        nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False),
        nn.Conv2d(4, 4, 3, padding="same"),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"),
        lambda x: F.pad(x, (1, -1)),
        lambda x: x[:, [0, 3, 1]],
        lambda x: F.pad(x, (1, 1), "constant", 0.0),
        lambda x: torch.add(x, x, alpha=1)[:, 1:3, None],
        lambda x: torch.add(x, x.transpose(2, 3), alpha=2),
        lambda x: x.sub_(x.transpose(2, 3).clone(), alpha=2),
    ],
)
def test_arguments_with_an_integer_form_pass(body):
    qat.prepare(Network(body), torch.randn(2, 3, 8, 8))


@pytest.mark.parametrize(
    ("before", "after", "types", "refused"),
    [
        (torch.float32, torch.bfloat16, {torch.float32}, True),
        (torch.float64, torch.float16, {torch.float32}, True),
        (torch.float64, torch.float32, {torch.float64}, False),  # holds every code
        (torch.float32, torch.float32, {torch.float32}, False),
        (torch.bfloat16, torch.float32, {torch.float32}, False),
        (torch.bfloat16, torch.float16, {torch.float32}, False),
        (
            torch.float32,
            torch.bfloat16,
            {torch.bfloat16},
            False,
        ),  # a network of bfloat16 that computes a norm in float32
        (torch.float32, torch.int64, {torch.float32}, False),
    ],
)
def test_conversions_to_fewer_bits_than_the_network_has_are_refused(before, after, types, refused):
    x = torch.ones(2, dtype=before)
    reason = reason_against_rounding(operation_of(torch.Tensor.to), [x], x.to(after), types)
    assert (reason is not None) == refused
    assert reason_against_rounding(operation_of(torch.relu), [x], x.to(after), types) is None
