"""What chooses among numbers, in ONNX Runtime and in torch."""

import pytest
import torch
from torch import nn

FUNCTIONS = {
    "where of numbers": lambda y: torch.where(y > 0, y, -1.0),
    "masked": lambda y: y.masked_fill(y > 0, 3.0),
    "chosen": lambda y: y.index_select(1, torch.tensor([5, 0, 0])) + y[:, torch.tensor([1, 2, 3])],
    "gathered": lambda y: y.gather(1, torch.zeros_like(y).long() + 2),
    "largest three": lambda y: y.topk(3, 1).values * y.topk(3, 1).indices,
    "triangles": lambda y: (y[:, :, None] * torch.ones(6)).tril(1) - (y[:, :, None] * torch.ones(6)).triu(),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_is_chosen(name, behind, difference):
    torch.manual_seed(1)
    assert difference(behind(FUNCTIONS[name]), torch.randn(5, 4)) < 1e-4


def test_integers_among_the_inputs_choose_entries(difference):
    class Chooses(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(9, 4)
            self.linear = nn.Linear(4, 3)

        def forward(self, ids):
            positions = torch.arange(ids.shape[1], device=ids.device)
            x = self.linear(self.table(ids) + self.table(positions))
            return x[torch.arange(ids.shape[0]), ids[:, 0]]

    torch.manual_seed(1)
    ids = torch.tensor([[2, 3, 8], [1, 7, 0], [0, 0, 4]])
    assert difference(Chooses(), ids) < 1e-4
