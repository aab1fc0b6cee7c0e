"""Activation functions, in ONNX Runtime and in torch."""

import pytest
import torch
import torch.nn.functional as F

FUNCTIONS = {
    "relu": torch.relu, "gelu": F.gelu, "gelu of tanh": lambda y: F.gelu(y, approximate="tanh"), "silu": F.silu,
    "hardswish": F.hardswish, "hardsigmoid": F.hardsigmoid, "elu": F.elu, "leaky_relu": F.leaky_relu,
    "softplus": F.softplus, "mish": F.mish, "hardtanh": F.hardtanh, "relu6": F.relu6,
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_activation_function(name, behind, difference):
    torch.manual_seed(1)
    assert difference(behind(FUNCTIONS[name]), torch.randn(5, 4)) < 1e-4
