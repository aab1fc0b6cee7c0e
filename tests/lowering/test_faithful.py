"""The program is the eval forward: code that computes something else while it is exported, and how that is noticed."""

import pytest
import torch
from torch import nn

import qat

QUESTIONS = [
    lambda x: torch.compiler.is_exporting(),
    lambda x: torch.compiler.is_compiling(),
    lambda x: torch._dynamo.is_compiling(),
    lambda x: torch.jit.is_tracing(),
]


class Wondering(nn.Module):
    """Two layers, and between them another function where `asks` is true."""

    def __init__(self, asks):
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 4)
        self.asks = asks

    def forward(self, x):
        """x: (batch, 6)."""
        hidden = self.first(x)
        if self.asks(x):  # as a mask of a library's attention, which it adds only then
            hidden = hidden + torch.ones(1, 8, dtype=torch.bool)
        return self.second(hidden.relu())


def trained(network, example):
    """Prepared and observed, in eval mode."""
    qat.prepare(network, example)
    network(example)
    return network.eval()


@pytest.mark.parametrize("asks", QUESTIONS)
def test_a_network_does_not_see_that_it_is_exported(asks):
    torch.manual_seed(0)
    x = torch.randn(16, 6)
    network = trained(Wondering(asks), x)
    assert torch.equal(qat.convert(network)(x), network(x))
