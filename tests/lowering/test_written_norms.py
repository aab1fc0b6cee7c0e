"""RMS norms that a network writes out are one kernel, however they are spelled; what only looks like one is none."""

import pytest
import torch
from torch import nn

import qat
from qat.integer.program import Normalize


class Gain(nn.Module):
    """What a norm has of its own: a weight, and an epsilon as a buffer."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-0.5, 1.5, 8))
        self.register_buffer("epsilon", torch.tensor(0.01))


PARTS = {"gain": Gain(), "conv": nn.Conv2d(8, 8, 1)}


def weight(net):
    return net.parts["gain"].weight


def rms(x, epsilon=0.01, dims=-1):
    return torch.rsqrt(x.pow(2).mean(dims, keepdim=True) + epsilon)


NORMS = {  # name: (body, norms in the program)
    "rsqrt": (lambda net, x: x * rms(x) * weight(net), 1),
    "gain_first": (lambda net, x: weight(net) * (x * rms(x)), 1),
    "no_gain": (lambda net, x: rms(x) * x, 1),
    "root": (lambda net, x: x / torch.sqrt((x * x).mean(-1, keepdim=True) + 0.01) * weight(net), 1),
    "square": (lambda net, x: x * (0.01 + x.square().mean(-1, True)).rsqrt() * weight(net), 1),
    "cast": (lambda net, x: weight(net) * (x.float() * rms(x.float())).to(x.dtype), 1),
    "two_dimensions": (lambda net, x: x * rms(x, dims=(-2, -1)) * weight(net), 1),
    "epsilon_scaled": (
        lambda net, x: x * torch.add(x.square().mean(-1, keepdim=True), 0.005, alpha=2).rsqrt() * weight(net), 1,
    ),
    "epsilon_in_a_buffer": (lambda net, x: x * rms(x, net.parts["gain"].epsilon) * weight(net), 1),
    "twice": (lambda net, x: x * rms(x) * weight(net) + net.parts["conv"](x * rms(x, 0.5)), 2),
    "one_after_the_other": (lambda net, x: (y := x * rms(x) * weight(net)) * rms(y), 2),
    "of_a_sum": (lambda net, x: (y := x + net.parts["conv"](x)) * rms(y) * weight(net), 1),
}  # fmt: skip


@pytest.mark.parametrize("quant", ["w8a8", "w4a4"])
@pytest.mark.parametrize("name", NORMS)
def test_a_norm_in_parts_is_one_kernel(name, quant, assert_agreement):
    body, count = NORMS[name]
    program = assert_agreement(body, 8 * 64, PARTS, quant)
    assert sum(isinstance(operation, Normalize) for operation in program.operations) == count


@pytest.mark.parametrize("name", ["rsqrt", "square", "epsilon_scaled", "epsilon_in_a_buffer"])
def test_epsilon_is_that_of_the_network(name, trained_network):
    program = qat.convert(trained_network(NORMS[name][0], 8 * 64, PARTS)[0])
    (norm,) = (operation for operation in program.operations if isinstance(operation, Normalize))
    source, target = (program.value(value).grid for value in (norm.inputs[0], norm.output))
    epsilon, _, _ = norm.factors.reals(source, target, l2=False)
    assert epsilon == pytest.approx(0.01, rel=1e-6)


OTHERS = {
    "the_mean_is_read_elsewhere": lambda net, x: (m := x.square().mean(-1, keepdim=True) + 0.01) + x * m.rsqrt(),
    "another_value_is_scaled": lambda net, x: net.parts["conv"](x) * rms(x),
    "the_root_of_a_mean": lambda net, x: x * (x.mean(-1, keepdim=True) + 0.01).rsqrt(),
    "multiplied_by_the_root": lambda net, x: x * (x.square().mean(-1, keepdim=True) + 0.01).sqrt(),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_only_looks_like_a_norm_is_computed_in_its_parts(name, trained_network):
    network, images = trained_network(OTHERS[name], 8 * 64, PARTS)
    program = qat.convert(network)
    with torch.no_grad():
        assert torch.equal(network(images), program(images))
    assert not any(isinstance(operation, Normalize) for operation in program.operations)
