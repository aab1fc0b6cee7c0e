"""What moves along the batch, or chooses by indices of the inputs, is refused before training, with its line."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qat
from qat.errors import PreparationError


class Between(nn.Module):
    """Two layers and `body` in between. x: (N, 5, 4)."""

    def __init__(self, body):
        super().__init__()
        self.first, self.last, self.body = nn.Linear(4, 4), nn.Linear(4, 4), body

    def forward(self, x, ids=None):
        """ids: (N, 5, 4) integers."""
        return self.last(self.body(self.first(x), ids))


X = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))
IDS = torch.arange(60).reshape(3, 5, 4) % 5

ALONG = {
    "flips": lambda y, _: y.flip(1, 0),
    "flips ": lambda y, _: torch.flip(y, dims=(-3,)),
    "rolls": lambda y, _: y.roll(1, 0),
    "joins along": lambda y, _: torch.cat([y, y]),
    "joins along ": lambda y, _: torch.cat((y, y), dim=-3),
    "cuts": lambda y, _: y[:2],
    "cuts ": lambda y, _: y[::2, 1:],
    "picks one sample of": lambda y, _: y[-1],
    "picks one sample of ": lambda y, _: y.select(0, 1),
    "picks samples of": lambda y, _: y.index_select(0, torch.tensor([0, 2])),
    "splits": lambda y, _: sum(y.split(1)),
    "takes apart the samples of": lambda y, _: y.unbind()[0],
    "repeats the samples of": lambda y, _: y.repeat_interleave(2, 0),
    "reduces over": lambda y, _: y - y.mean(0, keepdim=True),
    "reduces over ": lambda y, _: y - y.relu().amax(dim=(0, 1), keepdim=True),
    "adds up": lambda y, _: y.flatten(1).unflatten(1, (5, 4)).cumsum(0),
    "works on": lambda y, _: F.softmax(y, dim=0),
}


@pytest.mark.parametrize("what", ALONG)
def test_what_moves_along_the_batch_is_refused_with_its_line_and_the_way_out(what):
    message = rf"in the network at .*test_batch\.py:\d+ \(it {what.strip()} the batch; keep dimension 0 for the batch"
    with pytest.raises(PreparationError, match=message):
        qat.prepare(Between(ALONG[what]), X)
    qat.prepare(Between(ALONG[what]), X, target=None)


OTHER = {
    "behind a transposition": lambda y, _: y.transpose(0, 1).flip(0).roll(1, 0).transpose(0, 1),
    "all of it": lambda y, _: y[:][0:, :, 1:].repeat(1, 1, 2)[..., :4],
    "another dimension": lambda y, _: torch.cat([y[:, :1].roll(1, 1), y[:, 1:].flip(-1)], 1).softmax(-1),
    "a constant": lambda y, _: y + torch.arange(8.0).reshape(2, 4).flip(0)[0],
    "constant indices": lambda y, _: y.index_select(1, torch.tensor([4, 3, 2, 1, 0])),
}


@pytest.mark.parametrize("name", OTHER)
def test_what_leaves_the_batch_alone_is_taken(name):
    network = Between(OTHER[name])
    qat.prepare(network, X)
    network(X)
    network.eval()
    assert torch.equal(qat.convert(network)(X), network(X))


def test_train_mode_may_mix_samples():
    class Mixed(Between):
        def forward(self, x):
            y = self.first(x)
            return self.last(y + y.flip(0) if self.training else y + y)

    network = Mixed(None)
    qat.prepare(network, X)
    network(X)
    network.eval()
    assert torch.equal(qat.convert(network)(X), network(X))


@pytest.mark.parametrize(
    "body",
    [
        lambda y, ids: y.gather(1, ids),
        lambda y, ids: torch.take_along_dim(y, y.argmax(1, keepdim=True), 1),
    ],
)
def test_each_sample_may_choose_its_entries(body):
    network = Between(body)
    qat.prepare(network, (X, IDS))
    network(X, IDS)
    program = qat.convert(network.eval())
    given = {"x": X, "ids": IDS}
    assert torch.equal(program({edge.name: given[edge.name] for edge in program.inputs}), network(X, IDS))


def test_entries_chosen_for_all_samples_by_an_input_are_refused_with_the_way_out():
    message = r"test_batch\.py:\d+ \(it chooses by indices that depend on the inputs; choose by constant ones, or by"
    with pytest.raises(PreparationError, match=message):
        qat.prepare(Between(lambda y, ids: y.index_select(1, ids[0, :, 0])), (X, IDS))
