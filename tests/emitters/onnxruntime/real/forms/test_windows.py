"""Pooling and resizing, in ONNX Runtime and in torch."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn


@pytest.mark.parametrize(
    "function",
    [
        lambda y: F.max_pool2d(y, 2), lambda y: F.max_pool2d(y, 3, 2, 1), lambda y: F.avg_pool2d(y, 2),
        lambda y: F.avg_pool2d(y, 3, 2, 1), lambda y: F.avg_pool2d(y, 3, 2, 1, count_include_pad=False),
        lambda y: F.adaptive_avg_pool2d(y, 1), lambda y: F.adaptive_avg_pool2d(y, (2, 4)),
        lambda y: F.adaptive_avg_pool1d(y.flatten(2), 1), lambda y: F.adaptive_avg_pool3d(y[:, None], 2),
        lambda y: F.avg_pool1d(y.flatten(2), 4), lambda y: F.interpolate(y, scale_factor=2),
        lambda y: F.interpolate(y, scale_factor=2, mode="bilinear"),
        lambda y: F.interpolate(y, size=(11, 11), mode="bilinear", align_corners=True),
        lambda y: F.pixel_shuffle(y, 2), lambda y: y.mean((2, 3)),
    ],
)  # fmt: skip
def test_windows(function, difference):
    class Windows(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 4, 3, padding=1)

        def forward(self, x):
            return function(self.conv(x))

    torch.manual_seed(1)
    assert difference(Windows(), torch.randn(3, 1, 8, 8)) < 1e-4
