"""Arithmetic and other functions of each element, in ONNX Runtime and in torch."""

import pytest
import torch

FUNCTIONS = {
    "sigmoid": torch.sigmoid, "tanh": torch.tanh, "exp": torch.exp, "log": lambda y: torch.log(torch.sigmoid(y)),
    "sqrt": lambda y: torch.sqrt(torch.sigmoid(y)), "rsqrt": lambda y: torch.rsqrt(torch.sigmoid(y)), "abs": torch.abs,
    "neg": torch.neg, "sin": torch.sin, "cos": torch.cos, "tan": lambda y: torch.tan(torch.tanh(y)),
    "asin": lambda y: torch.asin(torch.tanh(y)), "acos": lambda y: torch.acos(torch.tanh(y)), "atan": torch.atan,
    "sinh": torch.sinh, "cosh": torch.cosh, "erf": torch.erf,
    "reciprocal": lambda y: torch.reciprocal(torch.sigmoid(y)), "floor": torch.floor, "ceil": torch.ceil,
    "round": torch.round, "sign": torch.sign, "clamp": lambda y: y.clamp(-0.2, 0.3),
    "clamp from below": lambda y: y.clamp(min=0.1),
    "sum with alpha": lambda y: torch.add(y, y.flip(1), alpha=2),
    "difference": lambda y: torch.sub(y, 1.5, alpha=2) - (2 - y),
    "product": lambda y: y * 0.5 * y,
    "quotient": lambda y: y / 3 / (y.abs() + 1),
    "powers": lambda y: y**2 + (y.abs() + 0.1) ** y + 2**y,
    "larger and smaller": lambda y: torch.maximum(y, y.flip(1)) - torch.minimum(y, -y),
    "remainders": lambda y: y % 0.7 + torch.floor_divide(y, 0.3),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_of_each_element(name, behind, difference):
    torch.manual_seed(1)
    assert difference(behind(FUNCTIONS[name]), torch.randn(5, 4)) < 1e-4
