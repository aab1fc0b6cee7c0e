"""Layers that run outside the forward of their network are found, and only those."""

import pytest
import torch
from torch import nn

import qat
from qat.training.detours import DetourWatch

X = torch.ones(2, 3)


def prepared():
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    return network, qat.prepare(network, X)


def test_what_runs_inside_the_forward_is_no_detour():
    network, handle = prepared()
    watch = DetourWatch(handle)
    network(X)
    assert watch.stop() == []


def test_layers_that_are_called_by_themselves_are_named_once():
    network, handle = prepared()
    watch = DetourWatch(handle)
    for _ in range(2):
        network[2](network[1](network[0](X)))
    assert watch.stop() == ["0", "2"]


def test_another_network_that_runs_around_it_is_a_detour_too():
    network, handle = prepared()
    outer = nn.Sequential(network[0], nn.Linear(4, 2))
    qat.prepare(outer, X)
    watch = DetourWatch(handle)
    outer(X)
    assert watch.stop() == ["0"]


class Owning(nn.Module):
    """Has a weight of its own beside a layer."""

    def __init__(self):
        super().__init__()
        self.weight, self.layer = nn.Parameter(torch.ones(3, 3)), nn.Linear(3, 2)

    def forward(self, x):
        return self.layer(nn.functional.linear(x, self.weight))


@pytest.mark.parametrize("make", [Owning, lambda: nn.Linear(3, 2)])
def test_weights_of_the_network_itself_run_in_its_forward(make):
    network = make()
    watch = DetourWatch(qat.prepare(network, X))
    network(X)
    assert watch.stop() == []


def test_nothing_is_watched_any_more_when_it_is_stopped():
    network, handle = prepared()
    watch = DetourWatch(handle)
    watch.stop()
    network[0](X)
    assert watch.stop() == []
