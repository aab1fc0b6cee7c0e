import pytest
import torch
import torch.nn.functional as F
from torch import nn

BODIES = {
    "add": (lambda net, x: F.relu(net.parts["conv"](x) + x), 8 * 64, {"conv": nn.Conv2d(8, 8, 1)}),
    "add_in_place": (
        lambda net, x: F.relu_(net.parts["conv"](x).add_(x)), 8 * 64, {"conv": nn.Conv2d(8, 8, 1)},
    ),
    "add_twice_the_same": (lambda net, x: x + x, 8 * 64, {}),
    "add_constant": (lambda net, x: x + net.position, 8 * 64, {}),
    "constant_add": (lambda net, x: net.position + x, 8 * 64, {}),
    "add_number": (lambda net, x: x + 0.75, 8 * 64, {}),
    "number_add": (lambda net, x: -0.3 + x, 8 * 64, {}),
    "mul": (lambda net, x: net.parts["conv"](x) * x, 8 * 64, {"conv": nn.Conv2d(8, 8, 1)}),
    "mul_broadcast": (
        lambda net, x: x * net.parts["conv"](x).mean((2, 3), keepdim=True), 8 * 64, {"conv": nn.Conv2d(8, 8, 1)},
    ),
    "mul_constant": (lambda net, x: x * net.scale, 8 * 64, {}),
    "mul_number": (lambda net, x: x * 1.7, 8 * 64, {}),
    "mul_negative_number": (lambda net, x: net.parts["conv"](x) * -0.6, 8 * 64, {"conv": nn.Conv2d(8, 8, 1)}),
    "relu6": (lambda net, x: F.relu6(net.parts["conv"](x) * 9.0), 8 * 64, {"conv": nn.Conv2d(8, 8, 1)}),
    "hardtanh": (lambda net, x: F.hardtanh(net.parts["conv"](x), -0.2, 0.3), 8 * 64, {"conv": nn.Conv2d(8, 8, 1)}),
    "clamp": (lambda net, x: net.parts["conv"](x).clamp(min=-0.1, max=0.25), 8 * 64, {"conv": nn.Conv2d(8, 8, 1)}),
    "clamp_of_sum": (
        lambda net, x: torch.clamp(net.parts["conv"](x) + x, max=0.4), 8 * 64, {"conv": nn.Conv2d(8, 8, 1)},
    ),
    "relu_alone": (
        lambda net, x: F.relu(torch.cat([y := net.parts["conv"](x), y * 0.5], 1)), 16 * 64,
        {"conv": nn.Conv2d(8, 8, 1)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("quant", ["w8a8", "w3a5"])
@pytest.mark.parametrize("name", BODIES)
def test_additions_products_and_clamps_lower_to_the_same_codes(name, quant, assert_agreement):
    assert_agreement(*BODIES[name], quant)
