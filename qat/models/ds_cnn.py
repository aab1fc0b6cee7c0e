"""DS-CNN, the keyword spotting network of MLPerf Tiny (arXiv:2106.07597; arXiv:1711.07128, size S).

Layers and parameters are those of the benchmark's Keras network (github.com/mlcommons/tiny). Its first layer pads four
rows at the top and five at the bottom, this one the other way round.
"""

import torch
from torch import nn


class SeparableBlock(nn.Sequential):
    """A 3 x 3 convolution of each channel, then a 1 x 1 convolution across them."""

    def __init__(self, channels: int):
        super().__init__(
            nn.Conv2d(channels, channels, kernel_size=3, padding=1, groups=channels),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, kernel_size=1),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
        )


class DSCNN(nn.Module):
    """A convolution, four separable blocks, pooling and a linear classifier; 23,756 parameters with 12 classes.

    dropout: share of the values behind the first layer that training leaves out; twice as many before the classifier.
    """

    def __init__(self, num_classes: int = 12, channels: int = 64, dropout: float = 0.2):
        super().__init__()
        self.stem = nn.Sequential(
            # 25 of the 26 rows that padding on both sides would give
            nn.Conv2d(1, channels, kernel_size=(10, 4), stride=2, padding=(5, 1)),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Dropout(dropout),
        )
        self.blocks = nn.Sequential(*(SeparableBlock(channels) for _ in range(4)))
        self.head = nn.Sequential(
            nn.Dropout(2 * dropout), nn.AvgPool2d((25, 5)), nn.Flatten(), nn.Linear(channels, num_classes)
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, 1, 49, 10), ten coefficients of 49 moments -> logits (B, num_classes)."""
        return self.head(self.blocks(self.stem(features)))  # (B, channels, 25, 5) between
