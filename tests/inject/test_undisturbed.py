"""What runs inside leaves no trace: modes, buffers and the states of every random generator are as before."""

import random

import numpy
import pytest
import torch
from torch import nn

from qat.inject.undisturbed import undisturbed


def network():
    made = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout())
    made[1].register_buffer("empty", None)
    return made


def disturb(made):
    made.train()
    made(torch.randn(4, 2))
    made[1].running_mean = torch.full((2,), 9.0)  # another tensor in its place
    made[0].register_buffer("extra", torch.ones(1))
    drawn()


def test_buffers_keep_their_contents_and_their_identity():
    made = network()
    buffers = dict(made.named_buffers())
    before = {name: buffer.clone() for name, buffer in buffers.items()}
    with undisturbed(made):
        disturb(made)
    assert dict(made.named_buffers()).keys() == buffers.keys()
    for name, buffer in made.named_buffers():
        assert buffer is buffers[name] and torch.equal(buffer, before[name])


def test_every_part_keeps_its_mode():
    made = network()
    made[1].eval()
    with undisturbed(made):
        made.eval()
    assert [part.training for part in made.modules()] == [True, True, False, True]


def seed():
    torch.manual_seed(0)
    random.seed(0)
    numpy.random.seed(0)


def drawn():
    return torch.rand(1).item(), random.random(), numpy.random.rand()


def test_random_states_go_on_as_if_nothing_was_drawn():
    made = network()
    seed()
    expected = drawn()
    seed()
    with undisturbed(made):
        disturb(made)
    assert drawn() == expected


def test_an_error_leaves_no_trace_either():
    made = network().eval()
    with pytest.raises(RuntimeError, match="inside"), undisturbed(made):
        disturb(made)
        raise RuntimeError("inside")
    assert not made.training and made[1].running_mean.tolist() == [0.0, 0.0]
