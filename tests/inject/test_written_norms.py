"""Which lines of a network are one RMS norm, and what that norm is."""

import pytest
import torch
from torch import nn

from qat.inject.flow import Flow
from qat.inject.record import record
from qat.inject.written_norms import EPSILON, GAIN, MEAN, ROOT, SCALE, SQUARE, Statistic, follow, written_norms
from qat.integer.values import Grid


class Network(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.layer, self.body = nn.Linear(4, 4), body
        self.gain = nn.Parameter(torch.tensor([1.0, 2.0, 3.0, 4.0]))

    def forward(self, x):
        return self.body(self.layer(x), self.gain)


def roles(body, may_fuse=lambda call: True):
    """The roles of the calls of `body`, in order; None for a call that is no step of a norm."""
    recording = record(Network(body), (torch.randn(2, 3, 4),), {})
    steps = written_norms(Flow(recording.calls, recording.outputs), may_fuse)
    return [steps[address].role if address in steps else None for address in recording.calls][1:]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (lambda x, g: x * (x.pow(2).mean(-1, keepdim=True) + 1e-6).rsqrt(), [SQUARE, MEAN, EPSILON, ROOT, SCALE]),
        (lambda x, g: x / ((x * x).mean(-1, True) + 1e-6).sqrt() * g, [SQUARE, MEAN, EPSILON, ROOT, SCALE, GAIN]),
        (
            lambda x, g: g * (x * torch.rsqrt(x.square().mean((-2, -1), keepdim=True) + 1e-6)),
            [SQUARE, MEAN, EPSILON, ROOT, SCALE, GAIN],
        ),
    ],
)
def test_a_norm_is_found_however_it_is_written(body, expected):
    assert roles(body) == expected


@pytest.mark.parametrize(
    "body",
    [
        lambda x, g: x * (x.pow(3).mean(-1, keepdim=True) + 1e-6).rsqrt(),  # no square
        lambda x, g: x * (x.pow(2).mean(1, keepdim=True) + 1e-6).rsqrt(),  # not the last dimension
        lambda x, g: x * (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt(),  # multiplied by the root
        lambda x, g: (x + 1) * (x.pow(2).mean(-1, keepdim=True) + 1e-6).rsqrt(),  # another value
        lambda x, g: x * (x.pow(2).mean(-1, keepdim=True)).rsqrt(),  # nothing keeps it from zero
    ],
)
def test_what_is_no_norm_stays_calls_of_its_own(body):
    assert set(roles(body)) == {None}


def test_a_mean_that_another_call_reads_leaves_no_norm():
    def body(x, gain):
        mean = x.pow(2).mean(-1, keepdim=True)
        return x * (mean + 1e-6).rsqrt() + mean

    assert set(roles(body)) == {None}


def test_a_norm_with_a_step_that_may_not_fuse_is_none():
    norm = lambda x, g: x * (x.pow(2).mean(-1, keepdim=True) + 1e-6).rsqrt()  # noqa: E731
    assert set(roles(norm, may_fuse=lambda call: call.operation.name != "mean")) == {None}


def test_the_steps_add_up_to_the_norm():
    recording = record(
        Network(lambda x, g: g * (x * (1e-6 + x.pow(2).mean((-2, -1), keepdim=True)).rsqrt())),
        (torch.randn(2, 3, 4),), {},
    )  # fmt: skip
    steps = written_norms(Flow(recording.calls, recording.outputs), lambda call: True)
    x, grid, gain = torch.ones(2, 3, 4), Grid(0.5, 0, 0, 255), torch.tensor([1.0, 2.0, 3.0, 4.0])
    known: dict[int, Statistic] = {}
    arguments = {
        SQUARE: (x, 2), MEAN: (x, (-2, -1)), EPSILON: (1e-6, x), ROOT: (x,), SCALE: (x, x), GAIN: (gain, x),
    }  # fmt: skip
    for address, step in sorted(steps.items()):
        slots = [slot for slot, _ in step.inner]
        args = arguments[step.role]
        if step.role == EPSILON and slots == [("args", 0)]:
            args = args[::-1]
        known[address] = follow(step, known, grid, args, {})
    last = known[max(steps)]
    assert (last.over, last.epsilon, last.grid) == (2, 1e-6, grid)
    assert last.x is x and last.gain.tolist() == [1.0, 2.0, 3.0, 4.0]
    assert steps[max(steps)].ends and sum(step.ends for step in steps.values()) == 1
