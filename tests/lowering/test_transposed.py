"""Transposed convolutions, as convolutions of inputs with zeros between their codes."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qat


def batch_norm(features):
    """A batch norm that has seen something, with a negative weight."""
    part = nn.BatchNorm2d(features)
    with torch.no_grad():
        part.weight.copy_(torch.linspace(-1.2, 1.3, features))
        part.bias.copy_(torch.linspace(0.4, -0.3, features))
        part.running_mean.copy_(torch.linspace(-0.1, 0.2, features))
        part.running_var.copy_(torch.linspace(0.5, 2.0, features))
    return part


LAYERS = {
    "windows_side_by_side": nn.ConvTranspose2d(8, 4, 2, stride=2),
    "windows_that_overlap": nn.ConvTranspose2d(8, 4, 3, stride=2, padding=1, output_padding=1),
    "stride_1": nn.ConvTranspose2d(8, 4, 3, bias=False),
    "a_kernel_smaller_than_the_stride": nn.ConvTranspose2d(8, 4, 1, stride=2, output_padding=1),
    "padding_that_cuts_the_input": nn.ConvTranspose2d(8, 4, 2, stride=3, padding=2),
    "dilated": nn.ConvTranspose2d(8, 4, 3, stride=2, padding=1, output_padding=1, dilation=2),
    "groups": nn.ConvTranspose2d(8, 6, 3, stride=2, groups=2),
    "one_output_per_group": nn.ConvTranspose2d(8, 4, 3, stride=2, groups=4),
    "two_outputs_per_channel": nn.ConvTranspose2d(8, 16, 3, stride=2, groups=8),
    "depthwise_and_uneven": nn.ConvTranspose2d(8, 8, (3, 2), stride=(2, 3), padding=1, groups=8, bias=False),
    "batch_norm_of_groups": nn.Sequential(nn.ConvTranspose2d(8, 6, 3, 2, groups=2), batch_norm(6), nn.ReLU()),
    "batch_norm_depthwise": nn.Sequential(nn.ConvTranspose2d(8, 8, 3, 2, groups=8), batch_norm(8), nn.ReLU6()),
}
OTHER_DIMENSIONS = {
    "1d": (nn.ConvTranspose1d(8, 4, 3, stride=2, padding=1, output_padding=1), (8, 40)),
    "3d": (nn.ConvTranspose3d(8, 4, 3, stride=2, padding=1, output_padding=1), (8, 5, 4, 2)),
}


def agrees(layer, shape, quant, assert_agreement):
    features = layer(torch.zeros(2, *shape)).flatten(1).shape[1]

    def body(net, x):
        return net.parts["up"](x[..., :5, :].reshape(-1, *shape))

    return assert_agreement(body, features, {"up": layer}, quant)


@pytest.mark.parametrize("quant", ["w8a8", "w2a4"])
@pytest.mark.parametrize("name", LAYERS)
def test_transposed_convolutions_lower_to_the_same_codes(name, quant, assert_agreement):
    agrees(LAYERS[name], (8, 5, 8), quant, assert_agreement)


@pytest.mark.parametrize("name", OTHER_DIMENSIONS)
def test_so_they_do_over_one_and_three_dimensions(name, assert_agreement):
    agrees(*OTHER_DIMENSIONS[name], "w8a8", assert_agreement)


def test_a_step_of_one_puts_no_zeros_between(assert_agreement):
    program = agrees(LAYERS["stride_1"], (8, 5, 8), "w8a8", assert_agreement)
    assert [type(operation).__name__ for operation in program.operations] == [
        "Conv", "Slice", "Conv", "Reshape", "Linear",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("layer", "axis", "scales"),
    [
        (nn.ConvTranspose2d(3, 8, 2, groups=1), 1, 8),
        (nn.ConvTranspose2d(6, 8, 2, groups=2), 1, 4),  # the groups share them
        (nn.ConvTranspose2d(6, 6, 2, groups=6), 0, 6),  # depthwise: inputs are outputs
    ],
)
def test_a_weight_has_one_scale_per_output_channel_of_a_group(layer, axis, scales):
    channels = layer.in_channels
    network = nn.Sequential(nn.Conv2d(3, channels, 1), layer)
    handle = qat.prepare(network, torch.randn(4, 3, 6, 6))
    network(torch.randn(4, 3, 6, 6))
    weight = handle.quantizers["1.weight"]
    assert weight.axis == axis and weight.qparams().scale.shape == (scales,)
    largest = layer.weight.detach().transpose(0, axis).flatten(1).abs().amax(1)
    assert torch.allclose(weight.qparams().scale, largest / 127)


def test_the_kernel_is_turned_around_and_its_groups_stay_apart():
    layer = nn.ConvTranspose1d(4, 6, 2, groups=2, bias=False)
    with torch.no_grad():  # input channel, output of the group, place: as digits
        digits = [[[100 * i + 10 * o + k for k in range(2)] for o in range(3)] for i in range(4)]
        layer.weight.copy_(torch.tensor(digits))
        layer.weight[:, :, 0] -= 1.0  # no two alike, none of them zero
        layer.weight.mul_(127 / 321)
    network = nn.Sequential(nn.Conv1d(4, 4, 1, groups=4), layer)
    qat.prepare(network, torch.randn(8, 4, 6))
    network(torch.randn(8, 4, 6))
    program = qat.convert(network.eval())
    kernel = next(operation for operation in program.operations if operation.source == "1").weight
    assert kernel.codes.shape == (6, 2, 2)
    real = kernel.codes * kernel.scale[:, None, None]
    for output in range(6):
        group, own = divmod(output, 3)
        for index in range(2):
            wanted = layer.weight[2 * group + index, own].flip(0)
            assert torch.allclose(real[output, index], wanted, atol=float(kernel.scale[output]) / 2)


def test_gradients_reach_the_weights_of_every_group():
    layer = nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2)
    network = nn.Sequential(nn.Conv2d(3, 4, 1), layer)
    qat.prepare(network, torch.randn(4, 3, 6, 6), "w4a4")
    F.relu(network(torch.randn(4, 3, 6, 6))).square().sum().backward()
    assert bool((layer.weight.grad != 0).any(dim=(1, 2, 3)).all())
