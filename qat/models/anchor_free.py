"""A small anchor-free detector: at every point of two levels, which shape is there and how far its edges are."""

import torch
from torch import nn
from torch.nn import functional as F

from qat.errors import ConfigurationError

#: Score of every class at the first step: nearly all points are background, and a sum over them of a loss that expects
#: one in two would drown the others (RetinaNet, arXiv:1708.02002, section 4.1).
FIRST_SCORE = 0.01

#: Distance to every edge at the first step, in strides.
FIRST_DISTANCE = 1.0


class Unit(nn.Module):
    """A 3 x 3 convolution, batch norm and SiLU."""

    def __init__(self, in_channels: int, channels: int, stride: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, kernel_size=3, stride=stride, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, in_channels, H, W) -> (B, channels, H / stride, W / stride)."""
        return F.silu(self.norm(self.conv(x)))


class Stage(nn.Module):
    """A unit that halves the image, and one around which the values may pass."""

    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        self.down = Unit(in_channels, channels, stride=2)
        self.unit = Unit(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, in_channels, H, W) -> (B, channels, H / 2, W / 2)."""
        x = self.down(x)
        return x + self.unit(x)


class Head(nn.Module):
    """What one level says of its points."""

    def __init__(self, channels: int, num_classes: int):
        super().__init__()
        self.unit = Unit(channels, channels)
        self.logits = nn.Conv2d(channels, num_classes, kernel_size=1)
        self.distances = nn.Conv2d(channels, 4, kernel_size=1)
        nn.init.constant_(self.logits.bias, torch.logit(torch.tensor(FIRST_SCORE)).item())
        nn.init.constant_(self.distances.bias, FIRST_DISTANCE)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, channels, H, W) -> logits (B, num_classes, H * W), distances (B, 4, H * W) of 0 or more."""
        x = self.unit(x)
        return self.logits(x).flatten(2), F.relu(self.distances(x)).flatten(2)


class AnchorFreeDetector(nn.Module):
    """Predicts at points, without anchor boxes (FCOS, arXiv:1904.01355).

    width: channels of the first convolution; the stages have two, three and four times as many.
    """

    #: Pixels between two points of each level, in the order of the outputs.
    strides = (8, 16)

    def __init__(self, num_classes: int = 5, width: int = 16):
        super().__init__()
        if width < 1:
            raise ConfigurationError(f"model.network.width is {width}; a convolution has at least one channel.")
        self.stem = Unit(3, width, stride=2)
        self.stage1 = Stage(width, 2 * width)
        self.stage2 = Stage(2 * width, 3 * width)
        self.stage3 = Stage(3 * width, 4 * width)
        self.near = Head(3 * width, num_classes)
        self.far = Head(4 * width, num_classes)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """(B, 3, H, W) in 0..1 -> "logits" (B, num_classes, N) and "distances" (B, 4, N).

        N: points, of the level of stride 8 row by row, then of that of stride 16. distances: to left, top, right and
        bottom edge, in strides.
        """
        x = self.stage2(self.stage1(self.stem(images)))  # (B, 3 * width, H / 8, W / 8)
        near_logits, near_distances = self.near(x)
        far_logits, far_distances = self.far(self.stage3(x))  # from (B, 4 * width, H / 16, W / 16)
        return {
            "logits": torch.cat([near_logits, far_logits], dim=2),
            "distances": torch.cat([near_distances, far_distances], dim=2),
        }
