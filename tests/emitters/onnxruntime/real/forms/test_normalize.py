"""Norms and softmax, in ONNX Runtime and in torch."""

import pytest
import torch
import torch.nn.functional as F

FUNCTIONS = {
    "layer norm": lambda y: F.layer_norm(y, (6,)),
    "layer norm with a gain": lambda y: F.layer_norm(y, (6,), torch.arange(6.0), torch.ones(6)),
    "rms norm": lambda y: F.rms_norm(y, (6,), torch.arange(6.0)),
    "group norm": lambda y: F.group_norm(y[..., None], 2, torch.arange(6.0), torch.ones(6)),
    "softmax": lambda y: torch.softmax(y, -1) + torch.log_softmax(y, 1),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_norms_and_softmax(name, behind, difference):
    torch.manual_seed(1)
    assert difference(behind(FUNCTIONS[name]), torch.randn(5, 4)) < 1e-4
