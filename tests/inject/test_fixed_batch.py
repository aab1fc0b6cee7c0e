"""A forward of one batch size is refused before training, with its line and what it returns."""

import pytest
import torch
from torch import nn

import qat
from qat.errors import PreparationError


class Net(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.first, self.last, self.body = nn.Linear(4, 4), nn.Linear(4, 4), body
        self.norm, self.calls = nn.BatchNorm1d(4), 0

    def forward(self, x):
        self.calls += 1
        self.kept = x
        return self.body(self, self.norm(self.first(x)))


X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            lambda net, x: net.last(x.reshape(3, 2, 2).flatten(1)),
            r"test_fixed_batch\.py:\d+ runs on the 3 samples of the example inputs and fails on 2 \(RuntimeError: .*"
            r"take the size from x\.shape\[0\] wherever it is a number, quantize a sub-network \(module=\), or train",
        ),
        (lambda net, x: net.last(x).reshape(3, 2, 2), r"fails on 2 \(RuntimeError: shape '\[3, 2, 2\]' is invalid"),
        (
            lambda net, x: net.last(x).t(),
            r"returns 'output' of shape \(4, 2\) for 2 samples, .*return it so, as by \.transpose\(0, 1\), leave",
        ),
        (
            lambda net, x: net.last(x).reshape(-1, 1),
            r"returns 'output' of shape \(8, 1\) for 2 samples.*as by \.unflatten\(0, \(x\.shape\[0\], -1\)\)",
        ),
    ],
)
def test_another_number_of_samples_is_tried_before_training(body, message):
    with pytest.raises(PreparationError, match=message):
        qat.prepare(Net(body), X)
    qat.prepare(Net(body), X, target=None)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_network_is_as_before(count):
    network = Net(lambda net, x: net.last(x))
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    random = torch.get_rng_state()
    if count == 1:
        network.norm = nn.Identity()  # torch has no batch norm of one sample
        state = {name: tensor for name, tensor in state.items() if not name.startswith("norm")}
    handle = qat.prepare(network, X[:count])
    assert network.training
    assert torch.equal(torch.get_rng_state(), random)
    handle.remove()
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())


def test_inputs_that_share_no_first_dimension_are_left_to_conversion():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(4, 4)

        def forward(self, x, shared):
            return self.first(x.reshape(3, 4)) * self.first(shared)

    qat.prepare(Two(), (X, X[:1]))
