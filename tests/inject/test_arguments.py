"""What lowering would refuse for its arguments is refused before training."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qat
from qat.errors import PreparationError


class Network(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.first, self.body = nn.Conv2d(3, 4, 3, padding=1), body

    def forward(self, x):
        return self.body(F.relu(self.first(x)))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"), "pad in body at .*'circular'; pad with zeros"),
        (nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), "'reflect'; pad with zeros"),
        (nn.Conv2d(4, 4, 3, padding=1, padding_mode="replicate"), "'replicate'; pad with zeros"),
        (lambda x: F.pad(x, (1, -1)), r"negative amounts \(1, -1\); cut with a slice"),
        (lambda x: torch.add(x, x.transpose(2, 3), alpha=2), "alpha=2 .*; multiply it before adding"),
        (nn.AvgPool2d(3, 2, ceil_mode=True), "avg_pool2d .*; use ceil_mode=False"),
        (nn.AvgPool2d(3, 2, 1, count_include_pad=False), "use count_include_pad=True"),
        (lambda x: F.avg_pool1d(x.flatten(2), 3, padding=1, count_include_pad=False), "use count_include_pad=True"),
        (lambda x: F.avg_pool2d(x, 2, divisor_override=3), "multiply behind the pool"),
        (lambda x: x[:, [0, 3, 1]], "a list of indices; cut slices, and join them"),
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
        nn.Conv2d(4, 4, 3, padding="same"),
        lambda x: F.pad(x, (1, 1), "constant", 0.0),
        lambda x: torch.add(x, x, alpha=1)[:, 1:3, None],
    ],
)
def test_arguments_with_an_integer_form_pass(body):
    qat.prepare(Network(body), torch.randn(2, 3, 8, 8))
