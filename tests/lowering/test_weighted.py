"""Layers with weights, and batch norm before, behind and without them."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qat
from qat.errors import ConversionError


def batch_norm(features, dims):
    """A batch norm that has seen something: means, variances, a negative and a tiny weight."""
    part = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[dims](features)
    with torch.no_grad():
        part.weight.copy_(torch.linspace(-1.2, 1.3, features))
        part.weight[features // 2] = 1e-12
        part.bias.copy_(torch.linspace(0.4, -0.3, features))
        part.running_mean.copy_(torch.linspace(-0.1, 0.2, features))
        part.running_var.copy_(torch.linspace(0.5, 2.0, features))
    return part


def conv_bn(net, x):
    return F.relu(net.parts["bn"](net.parts["conv"](x)))


BODIES = {
    "conv_batch_norm": (conv_bn, 4 * 64, {"conv": nn.Conv2d(8, 4, 3, padding=1), "bn": batch_norm(4, 2)}),
    "depthwise": (
        conv_bn, 8 * 64, {"conv": nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), "bn": batch_norm(8, 2)},
    ),
    "two_depthwise_outputs_per_channel": (
        conv_bn, 16 * 64, {"conv": nn.Conv2d(8, 16, 3, 1, 1, groups=8), "bn": batch_norm(16, 2)},
    ),
    "grouped_dilated_strided": (
        conv_bn, 4 * 9, {"conv": nn.Conv2d(8, 4, 3, 2, 1, dilation=2, groups=2), "bn": batch_norm(4, 2)},
    ),
    "same_padding": (conv_bn, 4 * 64, {"conv": nn.Conv2d(8, 4, (3, 5), padding="same"), "bn": batch_norm(4, 2)}),
    "conv1d": (
        lambda net, x: F.relu(net.parts["bn"](net.parts["conv"](x.flatten(2)))), 6 * 32,
        {"conv": nn.Conv1d(8, 6, 5, 2, 2), "bn": batch_norm(6, 1)},
    ),
    "conv1d_same_dilated_grouped": (
        lambda net, x: net.parts["conv"](x.flatten(2)), 6 * 64,
        {"conv": nn.Conv1d(8, 6, 4, padding="same", dilation=3, groups=2)},
    ),
    "conv1d_valid_depthwise": (
        lambda net, x: net.parts["conv"](x.flatten(2)), 8 * 60,
        {"conv": nn.Conv1d(8, 8, 5, padding="valid", groups=8, bias=False)},
    ),
    "conv_reflect": (
        lambda net, x: net.parts["conv"](x), 4 * 80,
        {"conv": nn.Conv2d(8, 4, 3, padding=(1, 2), padding_mode="reflect")},
    ),
    "conv1d_circular": (
        lambda net, x: net.parts["conv"](x.flatten(2)), 4 * 64,
        {"conv": nn.Conv1d(8, 4, 5, padding=2, padding_mode="circular")},
    ),
    "conv3d_replicate": (
        lambda net, x: net.parts["conv"](x.unflatten(3, (4, 2))), 4 * 64,
        {"conv": nn.Conv3d(8, 4, 3, padding=1, padding_mode="replicate")},
    ),
    "conv3d": (
        lambda net, x: F.relu(net.parts["bn"](net.parts["conv"](x.unflatten(3, (4, 2))))), 4 * 16,
        {"conv": nn.Conv3d(8, 4, 3, (2, 1, 2), 1, groups=2), "bn": batch_norm(4, 3)},
    ),
    "conv3d_same": (
        lambda net, x: net.parts["conv"](x.unflatten(3, (4, 2))), 4 * 64,
        {"conv": nn.Conv3d(8, 4, 3, padding="same", dilation=(2, 1, 1))},
    ),
    "batch_norm_alone_3d": (
        lambda net, x: net.parts["bn"](F.max_pool3d(x.unflatten(3, (4, 2)), 2)), 8 * 8, {"bn": batch_norm(8, 3)},
    ),
    "batch_norm_before": (
        lambda net, x: net.parts["conv"](net.parts["bn"](F.max_pool2d(x, 2))), 4 * 16,
        {"conv": nn.Conv2d(8, 4, 3, padding=1), "bn": batch_norm(8, 2)},
    ),
    "batch_norm_twice": (
        lambda net, x: net.parts["bn"](net.parts["bn"](net.parts["conv"](x))), 4 * 64,
        {"conv": nn.Conv2d(8, 4, 1), "bn": batch_norm(4, 2)},
    ),
    "linear_batch_norm": (
        lambda net, x: F.relu(net.parts["bn"](net.parts["linear"](x.flatten(1)))), 7,
        {"linear": nn.Linear(8 * 64, 7), "bn": batch_norm(7, 1)},
    ),
    "linear_3d": (lambda net, x: net.parts["linear"](x.flatten(2)), 8 * 5, {"linear": nn.Linear(64, 5)}),
    "batch_norm_alone": (lambda net, x: net.parts["bn"](F.max_pool2d(x, 2)), 8 * 16, {"bn": batch_norm(8, 2)}),
    "batch_norm_alone_1d": (
        lambda net, x: net.parts["bn"](x.flatten(2)[:, :, ::2]), 8 * 32, {"bn": batch_norm(8, 1)},
    ),
    "batch_norm_alone_features": (lambda net, x: net.parts["bn"](x.mean((2, 3))), 8, {"bn": batch_norm(8, 1)}),
    "shared_layer": (lambda net, x: net.parts["conv"](net.parts["conv"](x)), 8 * 64, {"conv": nn.Conv2d(8, 8, 1)}),
    "linear_3d_batch_norm": (
        lambda net, x: net.parts["bn"](net.parts["linear"](x.flatten(2))), 8 * 8,
        {"linear": nn.Linear(64, 8), "bn": batch_norm(8, 1)},
    ),
    "linear_4d": (lambda net, x: net.parts["linear"](x), 8 * 8 * 5, {"linear": nn.Linear(8, 5)}),
    "loop": (
        lambda net, x: [x := F.relu(net.parts["conv"](x)) for _ in range(3)][-1], 8 * 64, {"conv": nn.Conv2d(8, 8, 1)},
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("quant", ["w8a8", "w3a5"])
@pytest.mark.parametrize("name", BODIES)
def test_layers_with_weights_lower_to_the_same_codes(name, quant, assert_agreement):
    assert_agreement(*BODIES[name], quant)


@pytest.mark.parametrize("quant", ["w2a2", "w4a4", "w8a3"])
def test_narrow_grids_agree_as_well(quant, assert_agreement):
    parts = {"conv": nn.Conv2d(8, 4, 3, padding=1), "bn": batch_norm(4, 2)}
    with torch.no_grad():  # a tiny weight of the batch norm cannot be put at zero on a 2-bit grid
        parts["bn"].weight[2] = 0.1
    assert_agreement(conv_bn, 4 * 64, parts, quant)


def test_a_dead_channel_on_a_grid_without_zero_is_refused_with_the_remedy(trained_network):
    parts = {"conv": nn.Conv2d(8, 4, 3, padding=1), "bn": batch_norm(4, 2)}
    network, _ = trained_network(conv_bn, 4 * 64, parts, "w2a2")
    with pytest.raises(ConversionError, match="scales channel 2 to nearly nothing.*keep parts.conv at 3 bits or more"):
        qat.convert(network)


@pytest.mark.parametrize("quant", ["w8a8", "w4a4", "w2a2"])
@pytest.mark.parametrize("zeros", [slice(1, 2), slice(None)])
def test_channels_of_zeros_agree(quant, zeros, assert_agreement):
    """One all-zero output channel, and nothing but zeros."""
    conv = nn.Conv2d(8, 4, 3, padding=1)
    with torch.no_grad():
        conv.weight[zeros] = 0.0
    assert_agreement(lambda net, x: net.parts["conv"](x), 4 * 64, {"conv": conv}, quant)


@pytest.mark.parametrize("weight", [torch.ones(3, 4), torch.tensor([[1.0, 2, 3, 4], [1, 3, 2, 1], [0, 1, 2, 0.5]])])
def test_a_weight_that_the_forward_writes_out_in_a_network_without_parameters(weight):
    class Filter(nn.Module):
        def forward(self, x):
            return F.linear(x, torch.tensor(weight.tolist()))

    module = Filter()
    handle = qat.prepare(module, torch.ones(2, 4))
    assert handle.plan.sites["linear.weight"].shape == (3, 4)
    inputs = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    module(inputs)
    program = qat.convert(module.eval())
    assert torch.equal(program(inputs), module(inputs))
    assert program.operations[0].weight.codes.shape == (3, 4)
