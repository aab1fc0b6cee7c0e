"""Which calls share an address: layers told apart by what they compute with, loops by going round."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from qat.errors import AddressError, PreparationError
from qat.inject.calls import Operand
from qat.inject.origins import LONGEST_WAY, Origins
from qat.inject.prepare import prepare
from qat.lowering.convert import convert
from qat.spec import QuantConfig, Rule


class Network(nn.Module):
    """Four layers, one activation for all of them, and a body that calls them."""

    def __init__(self, body, make=lambda: nn.Linear(6, 6)):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(make() for _ in range(4))
        self.scales = nn.ParameterList(nn.Parameter(torch.randn(6, 6) * 0.1**power) for power in range(3))
        self.state, self.head = nn.Linear(6, 6), nn.Linear(6, 2)
        self.act = nn.ReLU()
        self.body = body

    def forward(self, x):
        return self.head(self.body(self, x))


def batch(*shape):
    return torch.randn(*(shape or (8, 6)), generator=torch.Generator().manual_seed(3))


def trained(network, x, quant="w8a8", target="onnxruntime"):
    handle = prepare(network, x, quant, target)
    network(x).square().sum().backward()
    network.eval()
    return handle


def quantizers(handle, role):
    return [name for name, site in handle.plan.sites.items() if site.role == role]


def one_activation_for_all(net, x):
    for layer in net.layers:
        x = net.act(layer(x)) + x
    return x


def a_list_of_weights(net, x):
    for weight in net.scales:
        x = F.relu(F.linear(x, weight))
    return x


def a_list_of_derived_weights(net, x):
    for weight in net.scales:
        x = F.relu(F.linear(x, weight / weight.abs().max()))
    return x


@pytest.mark.parametrize("make", [lambda: nn.Linear(6, 6), lambda: weight_norm(nn.Linear(6, 6))])
def test_a_loop_over_layers_with_one_activation_has_quantizers_for_each(make):
    network = Network(one_activation_for_all, make)
    handle = trained(network, batch())
    assert len(quantizers(handle, "weight")) == 5
    assert len(quantizers(handle, "activation")) == 10
    assert torch.equal(convert(network)(batch()), network(batch()))


@pytest.mark.parametrize("body", [a_list_of_weights, a_list_of_derived_weights])
def test_every_weight_of_a_list_has_a_grid_of_its_own(body):
    network = Network(body)
    handle = trained(network, batch())
    assert len(quantizers(handle, "weight")) == 4
    assert torch.equal(convert(network)(batch()), network(batch()))


def test_one_layer_several_times_in_a_sequential_is_followed():
    layer = nn.Linear(6, 6)
    network = nn.Sequential(*(part for _ in range(6) for part in (layer, nn.ReLU())), nn.Linear(6, 2))
    handle = trained(network, batch())
    assert quantizers(handle, "weight") == ["0.weight", "12.weight"]
    assert [name for name in quantizers(handle, "activation") if name.startswith("0")] == [
        "0.output", *(f"0#{count}.output" for count in range(2, 7))
    ]  # fmt: skip
    assert torch.equal(convert(network)(batch()), network(batch()))


@pytest.mark.parametrize("norm", [spectral_norm, torch.nn.utils.spectral_norm])
def test_a_weight_that_train_mode_iterates_on_is_followed(norm):
    network = nn.Sequential(norm(nn.Linear(6, 6)), nn.ReLU(), nn.Linear(6, 2))
    handle = trained(network, batch())
    assert len(handle.quantizers) == 5
    assert torch.equal(convert(network)(batch()), network(batch()))


def test_a_branch_of_train_mode_leaves_what_follows_alone():
    class Auxiliary(Network):
        def forward(self, x):
            x = self.layers[0](x)
            auxiliary = self.state(x) if self.training else None
            x = self.head(F.relu(x) + self.state.bias)
            return x if auxiliary is None else x + auxiliary[:, :2]

    network = Auxiliary(None)
    handle = trained(network, batch())
    assert "relu.output" in handle.quantizers and "relu#2.output" not in handle.quantizers
    assert torch.equal(convert(network)(batch()), network(batch()))


def recurrent(net, x):
    state = torch.zeros(1, 6)
    for step in range(x.shape[1]):
        state = F.relu(net.layers[0](x[:, step]) + net.state(state))
    return state


def test_a_state_that_begins_as_a_constant_is_on_one_grid():
    network = Network(recurrent)
    handle = trained(network, batch(5, 4, 6), target=None)
    assert quantizers(handle, "weight") == ["layers.0.weight", "state.weight", "head.weight"]
    assert quantizers(handle, "activation") == [
        "input.x",
        "layers.0.output",
        "state.output",
        "add.output",
        "head.output",
    ]
    network(batch(5, 9, 6))  # a loop of another length


def test_a_constant_as_large_as_the_batch_is_refused_before_training():
    network = Network(lambda net, x: net.layers[0](x) + torch.ones(x.shape[0], 6).cumsum(0))
    with pytest.raises(
        PreparationError, match=r"add in .* \(a constant as large as the batch; use one that broadcasts"
    ):
        prepare(network, batch())


def test_a_rule_for_a_layer_means_every_call_of_it():
    network = Network(lambda net, x: net.layers[1](F.relu(net.layers[1](F.relu(net.layers[0](x))))))
    config = QuantConfig(rules=(Rule("layers.1", weight_bits=3, activation_bits=5),))
    handle = prepare(network, batch(), config)
    assert handle.quantizers["layers.1.weight"].bits == 3
    assert [handle.quantizers[name].bits for name in ("layers.1.output", "layers.1#2.output")] == [5, 5]


def test_what_cannot_be_told_apart_is_refused():
    network = Network(lambda net, x: net.layers[0 if net.training else 1](x))
    with pytest.raises(AddressError, match=r"layers\.1 and layers\.0 are called from the same place"):
        prepare(network, batch())


def value(address):
    return Operand(("args", 0), ("call", address, 0), None, (1,))


def constant(name):
    return Operand(("args", 1), None, name, (1,))


def test_the_origin_of_a_call_is_that_of_its_latest_value():
    origins, (early, late, weight) = Origins({}), torch.ones(3, 1)
    origins.remember([early], origins.of([constant("a")], [weight]), ("first",))
    origins.remember([late], origins.of([constant("b")], [weight]), ("second",))
    origin = origins.of([value(0), value(1), constant("c")], [early, late, weight])
    assert (origin.layer, origin.way, origin.value, origin.constants) == ("b", (("second",),), ("call", 1, 0), ("c",))


def test_a_mask_says_nothing_of_where_the_scores_come_from():
    origins, (scores, mask, weight) = Origins({}), torch.ones(3, 1)
    origins.remember([scores], origins.of([constant("a")], [weight]), ("scores",))
    origins.remember([mask], origins.of([], []), ("mask",))
    operands, tensors = [value(0), value(1)], [scores, mask]
    assert origins.of(operands, tensors).layer == ""
    assert origins.of(operands, tensors, {id(mask)}).layer == "a"
    assert origins.of(operands[1:], tensors[1:], {id(mask)}).value == ("call", 1, 0)


def test_what_is_made_of_a_parameter_counts_as_that_parameter():
    origins, (weight, derived) = Origins({}), torch.ones(2, 1)
    origins.remember([derived], origins.of([constant("a")], [weight]))
    origin = origins.of([constant("")], [derived])
    assert (origin.named, origin.constants) == ((), ("a",))


def test_a_call_is_known_by_as_much_of_the_way_as_it_takes():
    reach, tensor = {}, torch.ones(1)
    origins = Origins(reach)
    for step in range(LONGEST_WAY + 5):
        origins.remember([tensor], origins.of([value(0)], [tensor]), ("step", step))
    origin = origins.of([value(0)], [tensor])
    assert len(origin.way) == LONGEST_WAY
    assert origins.way_behind(("call",), origin) == ()
    reach[("call",)] = 2
    assert origins.way_behind(("call",), origin) == (("step", LONGEST_WAY + 3), ("step", LONGEST_WAY + 4))
