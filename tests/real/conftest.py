import pytest
import torch
from torch import nn

import qat


class Mixed(nn.Module):
    """A convolution with batch norm, a depthwise one, pooling, a linear layer, a norm and softmax."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 6, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(6)
        self.depthwise = nn.Conv2d(6, 6, 3, groups=6, stride=2)
        self.norm = nn.LayerNorm(54)
        self.head = nn.Linear(54, 5)

    def forward(self, x):
        x = torch.relu(self.bn(self.conv(x)))
        x = nn.functional.gelu(self.depthwise(x))
        return torch.softmax(self.head(self.norm(x.flatten(1))), -1)


class Words(nn.Module):
    """Embedded ids of any length, attention that a mask leaves padding out of, and a tied output."""

    def __init__(self, tied: bool = False):
        super().__init__()
        self.embedding = nn.Embedding(11, 32)
        self.query, self.key, self.value = (nn.Linear(32, 32) for _ in range(3))
        self.head = nn.Linear(32, 11, bias=False)
        if tied:
            self.head.weight = self.embedding.weight

    def forward(self, ids, mask):
        x = self.embedding(ids)
        q, k, v = (layer(x).unflatten(2, (2, 16)).transpose(1, 2) for layer in (self.query, self.key, self.value))
        attended = nn.functional.scaled_dot_product_attention(q, k, v, mask.bool()[:, None, None, :])
        return self.head(x + attended.transpose(1, 2).flatten(2))


@pytest.fixture
def sentences():
    """Ids of two sentences of seven words, and the mask of the last two that are padding."""
    return {"ids": torch.arange(14).reshape(2, 7) % 11, "mask": torch.tensor([[1] * 7, [1] * 5 + [0] * 2])}


@pytest.fixture
def words():
    """Makes `Words`, in eval mode."""

    def make(tied=False):
        torch.manual_seed(0)
        return Words(tied).eval()

    return make


@pytest.fixture(scope="session")
def mixed():
    torch.manual_seed(0)
    network = Mixed()
    for _ in range(3):  # running statistics that are not those of the beginning
        network(torch.randn(8, 2, 8, 8))
    return network.eval()


@pytest.fixture(scope="session")
def quantized(mixed):
    """name of a preset -> the program of `Mixed`, made once."""
    made = {}

    def of(quant):
        if quant not in made:
            made[quant] = qat.quantize(mixed, [torch.randn(4, 2, 8, 8)], quant=quant)
        return made[quant]

    return of
