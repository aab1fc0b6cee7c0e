"""ResNet-8, the image classification network of MLPerf Tiny (arXiv:2106.07597), for CIFAR-10.

Layers and parameters are those of the benchmark's Keras network (github.com/mlcommons/tiny, resnet_v1_eembc). Where
that one pads layers of stride 2 at the bottom and the right alone, this one pads all sides, as torch does.
"""

import torch
from torch import nn
from torch.nn import functional as F


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions; the shortcut of a block that narrows the image is a 1 x 1 convolution without norm."""

    def __init__(self, in_channels: int, channels: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, kernel_size=3, stride=stride, padding=1)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, kernel_size=3, padding=1)
        self.bn2 = nn.BatchNorm2d(channels)
        narrows = stride != 1 or channels != in_channels
        self.shortcut = nn.Conv2d(in_channels, channels, kernel_size=1, stride=stride) if narrows else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, in_channels, H, W) -> (B, channels, H / stride, W / stride)."""
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNet8(nn.Module):
    """A convolution, three stages of one block, and a linear classifier; 78,186 parameters."""

    def __init__(self, num_classes: int = 10):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, kernel_size=3, padding=1)
        self.bn1 = nn.BatchNorm2d(16)
        self.block1 = BasicBlock(16, 16, stride=1)
        self.block2 = BasicBlock(16, 32, stride=2)
        self.block3 = BasicBlock(32, 64, stride=2)
        self.linear = nn.Linear(64, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)  # arXiv:1502.01852
                nn.init.zeros_(module.bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, 32, 32) normalized -> logits (B, num_classes)."""
        x = F.relu(self.bn1(self.conv1(images)))  # (B, 16, 32, 32)
        x = self.block1(x)
        x = self.block2(x)  # (B, 32, 16, 16)
        x = self.block3(x)  # (B, 64, 8, 8)
        return self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1))
