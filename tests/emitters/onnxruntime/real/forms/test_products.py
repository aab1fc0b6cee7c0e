"""Products of matrices, in ONNX Runtime and in torch."""

import pytest
import torch

FUNCTIONS = {
    "matmul": lambda y: y[:, :, None] @ y[:, None, :],
    "bmm": lambda y: torch.bmm(y[:, :, None], y[:, None, :]),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_products_of_matrices(name, behind, difference):
    torch.manual_seed(1)
    assert difference(behind(FUNCTIONS[name]), torch.randn(5, 4)) < 1e-4
