"""Finding the network, its inputs and its optimizer."""

import pytest
import pytorch_lightning
import torch
from torch import nn

from qat.errors import ConfigurationError
from qat.training.discovery import copied, find_network, inputs_of, learning_rate, trains


class Delegating(pytorch_lightning.LightningModule):
    def __init__(self, **children):
        super().__init__()
        for name, child in children.items():
            self.add_module(name, child)


class Forwarding(Delegating):
    def forward(self, x):
        return self.net(x)


class Pair(nn.Module):
    def forward(self, left, right, scale=1.0):
        return left + right * scale


def test_a_module_with_its_own_forward_is_the_network():
    module = Forwarding(net=nn.Linear(2, 2), other=nn.Linear(2, 2))
    assert find_network(module, None) is module


def test_else_the_one_child_with_parameters_is():
    module = Delegating(net=nn.Linear(2, 2), loss=nn.CrossEntropyLoss())
    assert find_network(module, None) is module.net


def test_several_candidates_are_named():
    module = Delegating(encoder=nn.Linear(2, 2), decoder=nn.Linear(2, 2))
    with pytest.raises(ConfigurationError, match=r"2 children with parameters.*'encoder', 'decoder'"):
        find_network(module, None)


def test_no_candidate_is_said():
    with pytest.raises(ConfigurationError, match="0 children with parameters"):
        find_network(Delegating(), None)


def test_the_network_by_path_or_itself():
    module = Delegating(parts=nn.ModuleDict({"body": nn.Linear(2, 2)}), other=nn.Linear(2, 2))
    assert find_network(module, "parts.body") is module.parts["body"]
    assert find_network(module, module.other) is module.other
    with pytest.raises(ConfigurationError, match="'parts.head' is no part of Delegating; pass one of 'parts', 'other'"):
        find_network(module, "parts.head")
    with pytest.raises(ConfigurationError, match="a Linear that is no part"):
        find_network(module, nn.Linear(2, 2))


def test_inputs_of_a_batch():
    x, y, target = torch.ones(2), torch.zeros(2), torch.tensor([1, 0])
    linear, pair = nn.Linear(2, 2), Pair()
    assert inputs_of(x, linear) is x
    assert inputs_of((x, target), linear) == (x,)
    assert inputs_of([x, y, target], pair) == (x, y)
    assert inputs_of(((x, y), target), linear) == (x,)
    assert inputs_of({"left": x, "right": y, "labels": target}, pair) == {"left": x, "right": y}
    assert inputs_of(({"left": x, "right": y}, target), linear_of_pair(pair)) == {"left": x, "right": y}


def linear_of_pair(pair):
    class Keywords(nn.Module):
        def forward(self, left, right=None):
            return pair(left, right)

    return Keywords()


def test_a_batch_that_tells_nothing_is_described():
    with pytest.raises(ConfigurationError, match=r"dict with the keys image, label.*forward\(left, right, scale\)"):
        inputs_of({"image": torch.ones(1), "label": torch.ones(1)}, Pair())
    with pytest.raises(ConfigurationError, match="a batch is a str"):
        inputs_of("text", nn.Linear(2, 2))


def test_copies_of_inference_tensors_are_ordinary():
    with torch.inference_mode():
        inputs = {"x": torch.ones(2), "n": 3}
        copy = copied(inputs)
    assert not copy["x"].is_inference()
    assert copy["n"] == 3


def test_which_optimizer_trains_a_network_and_at_what_rate():
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    optimizer = torch.optim.SGD(first.parameters(), lr=0.25)
    assert trains(optimizer, first)
    assert not trains(optimizer, second)
    assert learning_rate(optimizer) == 0.25
    assert learning_rate(None) is None
    optimizer.param_groups[0]["lr"] = torch.tensor(0.5)
    assert learning_rate(optimizer) == 0.5
    optimizer.param_groups[0]["lr"] = None
    assert learning_rate(optimizer) is None
