"""What runs over whole dimensions, in ONNX Runtime and in torch."""

import pytest
import torch

FUNCTIONS = {
    "means": lambda y: y.mean(1, keepdim=True) + y.view(-1, 2, 3).mean((1, 2))[:, None],
    "sums": lambda y: y.sum(1, keepdim=True) + y.view(-1, 2, 3).sum((1, 2))[:, None],
    "product over a dimension": lambda y: y.prod(1),
    "extremes": lambda y: y.amax(1) - y.amin(1) + y.max(1).values - y.min(1).values,
    "places": lambda y: y.argmax(1) + 10 * y.argmin(1) + y.max(1).indices + y.min(1).indices,
    "cumulative sum": lambda y: y.cumsum(1),
    "any and all": lambda y: (y > 0).any(1) * 1.0 + (y > -9).all(1) * 2.0,
    "variance": lambda y: y.var(1) + y.var(1, correction=0),
    "norms": lambda y: torch.linalg.vector_norm(y, dim=1) + torch.linalg.vector_norm(y, 1, dim=1),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_reduction(name, behind, difference):
    torch.manual_seed(1)
    assert difference(behind(FUNCTIONS[name]), torch.randn(5, 4)) < 1e-4
