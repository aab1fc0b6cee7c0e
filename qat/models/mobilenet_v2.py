"""MobileNetV2 (arXiv:1801.04381) for images of 32 x 32: fewer blocks, and one stride in place of five."""

import torch
from torch import nn

from qat.errors import ConfigurationError

#: Expansion, channels, how many blocks, stride of the first of them.
STAGES = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 2, 2), (6, 64, 3, 2), (6, 96, 2, 1))

#: Channels of the first layer and of the last.
FIRST, LAST = 16, 320


class ConvNormReLU6(nn.Sequential):
    """A convolution without bias, batch norm, and relu6."""

    def __init__(self, in_channels: int, channels: int, kernel_size: int = 1, stride: int = 1, groups: int = 1):
        super().__init__(
            nn.Conv2d(in_channels, channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU6(inplace=True),
        )


class InvertedResidual(nn.Module):
    """Widens, convolves each channel, narrows again without an activation; added to its input where shapes agree."""

    def __init__(self, in_channels: int, channels: int, stride: int, expansion: int):
        super().__init__()
        hidden = expansion * in_channels
        widen = [ConvNormReLU6(in_channels, hidden)] if expansion > 1 else []
        self.layers = nn.Sequential(
            *widen,
            ConvNormReLU6(hidden, hidden, kernel_size=3, stride=stride, groups=hidden),
            nn.Conv2d(hidden, channels, kernel_size=1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.is_residual = stride == 1 and in_channels == channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, in_channels, H, W) -> (B, channels, H / stride, W / stride)."""
        return x + self.layers(x) if self.is_residual else self.layers(x)


class MobileNetV2(nn.Module):
    """A convolution, ten inverted residuals in five stages, a 1 x 1 convolution and a linear classifier.

    width: factor of the channels of every stage. 388,810 parameters with width 1 and 10 classes.
    """

    def __init__(self, width: float = 1.0, num_classes: int = 10, dropout: float = 0.0):
        super().__init__()
        if width <= 0:
            raise ConfigurationError(f"model.network.width is {width}; it is a factor of the channels, above 0.")
        in_channels = _scaled(FIRST, width)
        layers: list[nn.Module] = [ConvNormReLU6(3, in_channels, kernel_size=3)]
        for expansion, channels, count, stride in STAGES:
            for index in range(count):
                channels_here = _scaled(channels, width)
                layers.append(InvertedResidual(in_channels, channels_here, 1 if index else stride, expansion))
                in_channels = channels_here
        last = _scaled(LAST, max(width, 1.0))  # the paper leaves the last layer as it is in narrow networks
        self.features = nn.Sequential(*layers, ConvNormReLU6(in_channels, last))
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(last, num_classes))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")  # arXiv:1502.01852

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, 32, 32) normalized -> logits (B, num_classes)."""
        x = self.features(images)  # (B, last, 8, 8)
        return self.classifier(x.mean((2, 3)))


def _scaled(channels: int, width: float) -> int:
    """A multiple of 8 near `channels * width`, for kernels that take 8 channels at once."""
    return max(8, round(channels * width / 8) * 8)
