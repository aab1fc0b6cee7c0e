"""Comparisons, and what is computed of their results, in ONNX Runtime and in torch."""

import pytest
import torch

FUNCTIONS = {
    "comparisons": lambda y: (
        (y > 0).float() + (y >= 0.1) * 2 + (y < y.flip(1)) * 4 + (y <= 0) * 8.0 + (y == y) * 16 + (y != 0) * 32
    ),
    "logic": lambda y: torch.where(
        (y > 0).logical_and(y < 0.5).logical_or((y > -0.3) & ~(y > 0) | (y > 0.7) ^ (y > 0.9)).logical_not(), y, -y
    ),
    "xor": lambda y: torch.where((y > 0).logical_xor(y > 0.2), y, 0.0),
    "no number": lambda y: torch.where(torch.isnan(y), 0.0, y),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_comparisons_and_logic(name, behind, difference):
    torch.manual_seed(1)
    assert difference(behind(FUNCTIONS[name]), torch.randn(5, 4)) < 1e-4
