"""The cost of a quantized step is measured on the network, which notices nothing of it."""

import pytest
import torch
from torch import nn

import qat
from qat.errors import ConfigurationError
from qat.training.slowdown import Slowdown, expected_slowdown


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(64, 3)
    )


def everything(module, handle):
    """Copies of all that a training step changes."""
    quantizers = {f"{name}.{key}": value for name, own in handle.state_dict().items() for key, value in own.items()}
    gradients = {name: parameter.grad for name, parameter in module.named_parameters()}
    gradients |= {name: parameter.grad for name, parameter in handle.named_parameters()}
    tensors = {**module.state_dict(), **quantizers, "random": torch.get_rng_state()}
    copies = {name: tensor.clone() for name, tensor in tensors.items()}
    modes = [part.training for part in module.modules()]
    return copies, gradients, modes, handle.state, handle.runs, handle.has_run


@pytest.mark.parametrize("quant", ["w8a8", "w4a4"])
@pytest.mark.parametrize("trained", [False, True])
def test_nothing_is_left_behind(quant, trained):
    module = network()
    handle = qat.prepare(module, torch.rand(4, 1, 6, 6), quant)
    if trained:
        module(torch.rand(4, 1, 6, 6)).sum().backward()
        handle.set_state(qat.QuantState(observe=False, freeze_batch_norm=True))
    module.eval()
    module[3].train()
    before = everything(module, handle)
    expected_slowdown(handle, torch.rand(4, 1, 6, 6, generator=torch.Generator().manual_seed(1)), rounds=2)
    after = everything(module, handle)
    assert before[0].keys() == after[0].keys()
    assert all(torch.equal(before[0][name], after[0][name]) for name in before[0])
    assert all(before[1][name] is after[1][name] for name in before[1])
    assert before[2:] == after[2:]


def test_it_is_the_median_of_the_rounds_in_one_line():
    slowdown = Slowdown((1.0, 2.0, 1.0), (1.5, 2.4, 9.0), 64, "cpu")
    assert slowdown.ratio == 1.5
    assert str(slowdown) == (
        "expected slowdown: a quantized step takes 1.50x the float one (median of 3, batch 64, cpu)"
    )


def test_rounds_and_batch_are_those_that_were_asked_for():
    handle = qat.prepare(network(), torch.rand(2, 1, 6, 6))
    slowdown = expected_slowdown(handle, {"input": torch.rand(5, 1, 6, 6)}, rounds=3)
    assert len(slowdown.float_seconds) == len(slowdown.quantized_seconds) == 3
    assert slowdown.batch_size == 5
    assert slowdown.ratio > 0.0


def test_a_network_without_gradients_has_no_step():
    module = network().requires_grad_(False)
    handle = qat.prepare(module, torch.rand(2, 1, 6, 6))
    state = handle.state
    with pytest.raises(ConfigurationError, match="no output of Sequential has a gradient"):
        expected_slowdown(handle, torch.rand(2, 1, 6, 6))
    assert handle.state == state
