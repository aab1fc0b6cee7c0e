"""A second network of the parts of a trained one takes over its quantizers."""

import pytest
import torch
from torch import nn

import qat
from qat.errors import PreparationError


class Trained(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 6)
        self.second = nn.Linear(6, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        x = torch.relu(self.first(x))
        return self.head(x + self.second(x))


class Part(nn.Module):
    """Of the same layers. body: what it computes."""

    def __init__(self, trained, body):
        super().__init__()
        self.first, self.second, self.head = trained.first, trained.second, trained.head
        self.body = body

    def forward(self, x, known=None):
        return self.body(self, x) if known is None else self.body(self, x, known)


@pytest.fixture(params=["w8a8", "w4a4"])
def trained(request):
    torch.manual_seed(0)
    network = Trained()
    qat.prepare(network, torch.randn(2, 4), request.param)
    for _ in range(3):
        network(torch.randn(16, 4))
    return network.eval()


def features(part, x):
    return torch.relu(part.first(x))


def head(part, x, known):
    joined = torch.cat([known, torch.relu(part.first(x))], 1)[:, 1:]
    return part.head(joined + part.second(joined)), joined


def test_a_part_computes_the_codes_of_the_whole(trained):
    x = torch.randn(32, 4)
    part = Part(trained, features)
    handle = qat.prepare_alike(part, torch.randn(2, 4), trained)
    assert list(handle.quantizers) == ["input.x", "first.output", "first.weight"]
    program = qat.convert(part)
    assert torch.equal(program(x), part.eval()(x))
    whole = {value.name: value.grid for value in qat.convert(trained).values}
    assert program.value("first").grid == whole["first"]


def test_an_input_that_is_joined_with_a_value_lies_on_its_grid(trained):
    part = Part(trained, head).eval()
    handle = qat.prepare_alike(part, (torch.randn(2, 4), torch.randn(2, 1)), trained)
    assert "input.known" in handle.quantizers and "first.output" not in handle.quantizers
    program = qat.convert(part)
    x, known = torch.randn(8, 4), torch.rand(8, 1)
    assert all(torch.equal(*pair) for pair in zip(program((x, known)), part(x, known), strict=True))
    own = qat.convert(trained)
    assert program.value("input.known").grid == own.value("first").grid


def test_the_trained_network_is_left_as_it_was(trained):
    x = torch.randn(8, 4)
    before = trained(x)
    part = Part(trained, features)
    qat.prepare_alike(part, torch.randn(2, 4), trained)
    part.train()(100 * torch.randn(8, 4))
    assert torch.equal(trained(x), before)


def test_a_value_that_the_trained_network_does_not_compute_is_refused(trained):
    part = Part(trained, lambda part, x: part.head(torch.relu(part.first(x)) + x.mean(1, keepdim=True)))
    with pytest.raises(PreparationError, match="has no quantizer for .*build the network of its layers"):
        qat.prepare_alike(part, torch.randn(2, 4), trained)
    assert torch.equal(part(torch.ones(1, 4)), part.body(part, torch.ones(1, 4)))


def test_values_that_lie_on_two_grids_cannot_share_one(trained):
    part = Part(trained, lambda part, x: torch.cat([y := torch.relu(part.first(x)), part.second(y)], 1))
    with pytest.raises(PreparationError, match="is one grid for values that the trained network has on"):
        qat.prepare_alike(part, torch.randn(2, 4), trained)


def test_a_weight_of_another_shape_is_refused(trained):
    part = Part(trained, features)
    part.first = nn.Linear(4, 7)
    with pytest.raises(PreparationError, match="has no quantizer for first.weight"):
        qat.prepare_alike(part, torch.randn(2, 4), trained)


def test_a_network_that_is_not_prepared_has_nothing_to_take_over():
    network = Trained()
    with pytest.raises(PreparationError, match="the trained network is a Trained that is not prepared"):
        qat.prepare_alike(Part(network, features), torch.randn(2, 4), network)
