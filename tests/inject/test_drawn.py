"""Random numbers of eval mode are refused; those of train mode are no part of what the network computes."""

import pytest
import torch
from torch import nn

import qat
from qat.errors import PreparationError
from qat.inject.drawn import Drawn
from qat.inject.operations import operation_of


class Noisy(nn.Module):
    def __init__(self, body, always):
        super().__init__()
        self.layer, self.last, self.body, self.always = nn.Linear(3, 4), nn.Linear(4, 2), body, always

    def forward(self, x):
        x = self.layer(x)
        return self.last(self.body(x) if self.always or self.training else x)


BODIES = [
    lambda x: x + torch.randn_like(x),
    lambda x: x + 0.1 * torch.randn(x.shape),
    lambda x: x * (torch.rand(x.shape[0], 1) + 0.5),
    lambda x: x * torch.bernoulli(torch.full_like(x, 0.5)),
    lambda x: x + torch.zeros_like(x).normal_(),
]


@pytest.mark.parametrize("body", BODIES)
def test_numbers_that_are_drawn_in_eval_mode_are_refused_as_such(body):
    with pytest.raises(PreparationError, match=r"(add|mul) in the network at .*test_drawn\.py:\d+ \(random numbers"):
        qat.prepare(Noisy(body, always=True), torch.randn(4, 3))


@pytest.mark.parametrize("body", BODIES)
def test_numbers_that_are_drawn_in_training_alone_leave_the_program_alone(body):
    network, x = Noisy(body, always=False), torch.randn(4, 3)
    qat.prepare(network, x)
    network(x)
    network.eval()
    with torch.no_grad():
        assert torch.equal(qat.convert(network)(x), network(x))


def test_what_is_made_of_drawn_numbers_is_random_and_nothing_else():
    drawn, noise, other = Drawn(), torch.ones(2), torch.ones(2)
    drawn.note(operation_of(torch.randn), (), noise)
    twice = noise * 2
    drawn.note(operation_of(torch.mul), (noise,), twice)
    drawn.note(operation_of(torch.mul), (other,), other)
    assert drawn.reason_against((other,)) is None
    assert all(drawn.reason_against((other, tensor)).startswith("random numbers") for tensor in (noise, twice))
