"""A small vision transformer (arXiv:2010.11929), whose classifier reads the mean of all tokens (arXiv:2205.01580)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qat.errors import ConfigurationError
from qat.models.attention import Heads

#: Standard deviation of the positions at the beginning.
INITIAL_STD = 0.02


class Attention(Heads):
    """Self-attention of all tokens."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, width) -> the same shape."""
        return self.joined(F.scaled_dot_product_attention(*self.split(x)))


class Block(nn.Module):
    """Attention, then two layers with a GELU between, each behind a norm and added to the residual stream."""

    def __init__(self, width: int, heads: int, hidden: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.expand = nn.Linear(width, hidden)
        self.contract = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, width) -> the same shape."""
        x = x + self.attention(self.norm1(x))
        return x + self.contract(F.gelu(self.expand(self.norm2(x))))


class VisionTransformer(nn.Module):
    """Patches of an image as tokens, `depth` blocks, and a linear classifier.

    image_size, patch_size: pixels along an edge. width: of the residual stream. hidden: of the layers between.
    810,890 parameters by default.
    """

    def __init__(
        self,
        image_size: int = 32,
        patch_size: int = 4,
        width: int = 128,
        heads: int = 4,
        depth: int = 6,
        hidden: int = 256,
        num_classes: int = 10,
    ):
        super().__init__()
        for setting, size, part, divisor in (
            ("image_size", image_size, "patch_size", patch_size),
            ("width", width, "heads", heads),
        ):
            if divisor < 1 or size % divisor:
                raise ConfigurationError(
                    f"model.network.{setting} {size} is no multiple of model.network.{part} {divisor}; give one."
                )
        self.patches = nn.Conv2d(3, width, kernel_size=patch_size, stride=patch_size)
        self.position = nn.Parameter(torch.randn(1, (image_size // patch_size) ** 2, width) * INITIAL_STD)
        self.blocks = nn.Sequential(*(Block(width, heads, hidden) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, image_size, image_size) normalized -> logits (B, num_classes)."""
        tokens = self.patches(images).flatten(2).transpose(1, 2) + self.position  # (B, T, width)
        return self.head(self.norm(self.blocks(tokens)).mean(1))
