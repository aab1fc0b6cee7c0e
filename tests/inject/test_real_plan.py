"""Networks whose activations stay real, or are quantized token by token: what preparing them does."""

import pytest
import torch
from torch import nn

import qat
from qat.errors import ConfigurationError, PreparationError
from qat.schedule import QuantState
from qat.tokens import fake_quantize_tokens


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(5, 40)
        self.first = nn.Linear(40, 6)
        self.middle = nn.Linear(6, 6)
        self.scale = nn.Parameter(torch.ones(6))
        self.last = nn.Linear(6, 3)

    def forward(self, ids):
        x = torch.relu(self.first(self.table(ids)))
        return self.last(self.middle(x) * self.scale)


IDS = torch.tensor([[0, 1, 2], [3, 4, 0]])


def prepared(quant, target=None):
    torch.manual_seed(0)
    network = Network()
    return network, qat.prepare(network, IDS, quant, target)


def test_quantizers_sit_on_weights_alone_in_groups_of_their_rows():
    _, handle = prepared("w4-weight-only")
    assert list(handle.quantizers) == ["table.weight", "first.weight", "middle.weight", "last.weight"]
    assert {name: tuple(quantizer.scale.shape) for name, quantizer in handle.quantizers.items()} == {
        "table.weight": (5, 2), "first.weight": (6, 2), "middle.weight": (6, 1), "last.weight": (3, 1),
    }  # fmt: skip
    assert [quantizer.bits for quantizer in handle.quantizers.values()] == [4, 8, 4, 8]  # the first and the last keep 8
    assert not handle.plan.inputs


def test_without_a_weight_grid_nothing_is_quantized():
    network, handle = prepared("fp16")
    assert not handle.quantizers
    assert torch.equal(network(IDS), Network.forward(network, IDS))


def test_layers_compute_with_rounded_weights_and_real_activations():
    network, handle = prepared("w4-weight-only")
    network.train()
    x = network(IDS)
    rounded = {name: quantizer(handle.weight_of(name)) for name, quantizer in handle.quantizers.items()}
    y = nn.functional.embedding(IDS, rounded["table.weight"])
    y = torch.relu(nn.functional.linear(y, rounded["first.weight"], network.first.bias))
    y = nn.functional.linear(y, rounded["middle.weight"], network.middle.bias) * network.scale
    assert torch.equal(x, nn.functional.linear(y, rounded["last.weight"], network.last.bias))


def test_dynamic_layers_read_each_token_on_its_own_grid():
    network, handle = prepared("w8-dynamic")
    network.train()
    x = network(IDS)
    rounded = {name: quantizer(handle.weight_of(name)) for name, quantizer in handle.quantizers.items()}
    y = nn.functional.embedding(IDS, rounded["table.weight"])
    for layer, name in ((network.first, "first"), (network.middle, "middle"), (network.last, "last")):
        y = nn.functional.linear(fake_quantize_tokens(y, (-1,)), rounded[f"{name}.weight"], layer.bias)
        y = torch.relu(y) if name == "first" else y * network.scale if name == "middle" else y
    assert torch.equal(x, y)


def test_a_phase_in_float_is_float():
    network, handle = prepared("w8-dynamic")
    handle.set_state(QuantState(observe=True, fake_quantize=False))
    assert torch.equal(network(IDS), Network.forward(network, IDS))


@pytest.mark.parametrize("quant", ["w4-weight-only", "w8-dynamic", "w2-weight-only"])
def test_weights_and_steps_get_gradients(quant):
    network, handle = prepared(quant)
    network(IDS).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in network.parameters())
    learned = list(handle.parameters())
    assert bool(learned) == (quant != "w8-dynamic")
    assert all(parameter.grad is not None for parameter in learned)


def test_a_rule_leaves_the_weights_of_a_layer_as_they_are():
    config = qat.QuantConfig(
        weight=qat.QuantSpec(granularity="per_channel"),
        activations="dynamic",
        rules=[qat.Rule("middle", quantize=False)],
    )
    network, handle = prepared(config)
    assert list(handle.quantizers) == ["table.weight", "first.weight", "last.weight"]
    assert not any(action.tokens for action in handle.plan.actions.values() if action.layer == "middle")
    with pytest.raises(ConfigurationError, match="the rule for 'mid' matches no layer"):
        prepared(qat.QuantConfig(activations="float", rules=[qat.Rule("mid", quantize=False)]))


def test_a_convolution_reads_a_sample_as_one_token_and_a_transposed_one_real_numbers():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ConvTranspose2d(2, 1, 3))
    handle = qat.prepare(network, torch.randn(2, 1, 5, 5), "w8-dynamic", None)
    tokens = {action.layer: action.tokens for action in handle.plan.actions.values()}
    assert tokens == {"0": ((("args", 0), (-3, -2, -1)),), "1": ()}


def test_there_must_be_something_to_quantize():
    with pytest.raises(PreparationError, match="there is nothing to quantize"):
        qat.prepare(nn.ReLU(), torch.randn(2, 3), "w4-weight-only", None)


def test_what_a_file_cannot_hold_is_refused_before_training():
    class Bessel(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 3)

        def forward(self, x):
            return torch.special.i0(self.linear(x))

    network = Bessel()
    with pytest.raises(PreparationError, match=r"i0 in the network at .*test_real_plan.py:\d+"):
        qat.prepare(network, torch.randn(2, 3), "w4-weight-only")
    assert torch.equal(network(torch.ones(1, 3)), Bessel.forward(network, torch.ones(1, 3)))
    qat.prepare(network, torch.randn(2, 3), "w4-weight-only", None).remove()


def test_removing_gives_the_network_back():
    network, handle = prepared("w2-weight-only")
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network(IDS)
    handle.remove()
    assert torch.equal(network(IDS), Network.forward(network, IDS))
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
