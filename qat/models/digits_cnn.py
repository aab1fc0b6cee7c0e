"""A small residual network for 8 x 8 images."""

import torch
from torch import nn

from qat.errors import ConfigurationError


class DigitsCNN(nn.Module):
    """Three 3 x 3 convolutions, the second with a residual connection, then pooling and a linear classifier.

    width: channels of the first two convolutions; the third has twice as many.
    """

    def __init__(self, width: int = 16, num_classes: int = 10):
        super().__init__()
        if width < 1:
            raise ConfigurationError(f"model.network.width is {width}; a convolution has at least one channel.")
        self.conv1 = nn.Conv2d(1, width, kernel_size=3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 2 * width, kernel_size=3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(2 * width)
        self.relu = nn.ReLU()
        self.pool = nn.MaxPool2d(2)
        self.average = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(2 * width, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 1, 8, 8) in 0..1 -> logits (B, num_classes)."""
        x = self.relu(self.bn1(self.conv1(images)))  # (B, width, 8, 8)
        x = self.relu(self.bn2(self.conv2(x)) + x)
        x = self.pool(x)  # (B, width, 4, 4)
        x = self.relu(self.bn3(self.conv3(x)))  # (B, 2 * width, 4, 4)
        x = self.average(x).flatten(1)
        return self.linear(x)
