"""Types, tensors made of none, and sizes, in ONNX Runtime and in torch."""

import pytest
import torch

FUNCTIONS = {
    "full": lambda y: y + torch.full((y.shape[0], 6), 2.0) + y.new_zeros(y.shape[0], 1),
    "sizes": lambda y: y.reshape(y.shape[0] * 2, 3).reshape(y.shape[0], -1) / y.shape[1],
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_tensors_made_of_sizes(name, behind, difference):
    torch.manual_seed(1)
    assert difference(behind(FUNCTIONS[name]), torch.randn(5, 4)) < 1e-4
