import pytest
import torch
import torch.nn.functional as F
from torch import nn

BODIES = {
    "identity": (lambda net, x: x, 8 * 64, {}),
    "cat": (lambda net, x: torch.cat([net.parts["conv"](x), x], 1), 12 * 64, {"conv": nn.Conv2d(8, 4, 1)}),
    "stack": (lambda net, x: torch.stack([net.parts["conv"](x), x], 2), 16 * 64, {"conv": nn.Conv2d(8, 8, 1)}),
    "slices": (lambda net, x: x[:, 1:7:2, ::2, 3:] , 3 * 4 * 5, {}),
    "select": (lambda net, x: x[:, :, 2], 8 * 8, {}),
    "split": (lambda net, x: torch.cat(x.split([3, 5], 1)[::-1], 1), 8 * 64, {}),
    "chunk": (lambda net, x: torch.cat(x.chunk(2, 3), 1), 8 * 64, {}),
    "unbind": (lambda net, x: torch.cat(x.unbind(2)[1:3], 1), 16 * 8, {}),
    "pad": (lambda net, x: F.pad(x, (1, 0, 2, 1)), 8 * 9 * 11, {}),
    "pad_signed": (lambda net, x: F.pad(net.parts["conv"](x), (1, 1)), 8 * 80, {"conv": nn.Conv2d(8, 8, 1)}),
    "permute": (lambda net, x: net.parts["linear"](x.permute(0, 2, 3, 1)), 64 * 3, {"linear": nn.Linear(8, 3)}),
    "transpose": (
        lambda net, x: net.parts["linear"](x.flatten(2).transpose(1, 2)), 64 * 3, {"linear": nn.Linear(8, 3)},
    ),
    "reshapes": (lambda net, x: x.view(x.size(0), 2, -1).unsqueeze(1).squeeze(1).unflatten(2, (16, 16)), 512, {}),
    "dropout": (
        lambda net, x: F.dropout(net.parts["conv"](x), 0.5, net.training), 8 * 64, {"conv": nn.Conv2d(8, 8, 1)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("quant", ["w8a8", "w3a5"])
@pytest.mark.parametrize("name", BODIES)
def test_moves_lower_to_the_same_codes(name, quant, assert_agreement):
    assert_agreement(*BODIES[name], quant)


def test_a_constant_of_every_window_is_merged_with_the_batch_as_the_windows_are(assert_agreement):
    def body(network, x):
        windows = x.reshape(x.shape[0] * 4, 8, 16)
        bias = torch.linspace(0.1, 1.0, 4).view(1, 4, 1, 1).expand(x.shape[0], 4, 8, 16).reshape(-1, 8, 16)
        return (windows + bias).reshape(x.shape[0], 8, 64)

    program = assert_agreement(body, 8 * 64, {}, "w8a8")
    assert [tuple(constant.shape) for constant in program.constants] == [(4, 8, 16)]
