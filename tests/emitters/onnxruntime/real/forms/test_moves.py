"""What moves numbers to other places, in ONNX Runtime and in torch."""

import pytest
import torch
import torch.nn.functional as F

FUNCTIONS = {
    "reshapes": lambda y: y.view(-1, 2, 3).transpose(1, 2).reshape(y.shape[0], -1).unsqueeze(1).squeeze(1),
    "slices": lambda y: torch.cat([y[:, 1:5:2], y[:, -2:], y[:, 3][:, None]], 1),
    "pieces": lambda y: torch.cat(y.split([1, 2, 3], 1)[::-1], 1) + torch.stack(y.chunk(2, 1), 1).flatten(1),
    "padding": lambda y: F.pad(y, (1, 2), value=0.5),
    "expanded": lambda y: y[:, :, None].expand(-1, -1, 3) * torch.arange(3.0),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_is_moved(name, behind, difference):
    torch.manual_seed(1)
    assert difference(behind(FUNCTIONS[name]), torch.randn(5, 4)) < 1e-4
