"""Networks as people write them for small devices, each with its example inputs as keyword arguments."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def _convolution(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class UNet(nn.Module):
    """Two levels down and up again, with skips joined by concatenation (Ronneberger et al., arXiv:1505.04597)."""

    def __init__(self, width: int = 8, classes: int = 3):
        super().__init__()
        self.first, self.second = _convolution(3, width), _convolution(width, 2 * width)
        self.bottom = _convolution(2 * width, 4 * width)
        self.up_second = nn.ConvTranspose2d(4 * width, 2 * width, 2, stride=2)
        self.merge_second = _convolution(4 * width, 2 * width)
        self.up_first = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        self.merge_first = _convolution(3 * width, width)
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """image: (batch, 3, H, W) with H and W divisible by 4 -> (batch, classes, H, W)."""
        first = self.first(image)
        second = self.second(F.max_pool2d(first, 2))
        bottom = self.bottom(F.max_pool2d(second, 2))
        merged = self.merge_second(torch.cat([self.up_second(bottom), second], dim=1))
        merged = self.merge_first(torch.cat([self.up_first(merged), first], dim=1))
        return self.head(merged)


class KeywordSpotter(nn.Sequential):
    """Depthwise separable convolutions on one second of audio at 8 kHz (Zhang et al., arXiv:1711.07128)."""

    def __init__(self, width: int = 16, keywords: int = 4):
        def separable(inputs: int, outputs: int) -> list[nn.Module]:
            return [
                nn.Conv1d(inputs, inputs, 9, stride=2, padding=4, groups=inputs, bias=False),
                nn.BatchNorm1d(inputs), nn.ReLU(),
                nn.Conv1d(inputs, outputs, 1, bias=False), nn.BatchNorm1d(outputs), nn.ReLU(),
            ]  # fmt: skip

        super().__init__(
            nn.Conv1d(1, width, 40, stride=16, bias=False), nn.BatchNorm1d(width), nn.ReLU(),
            *separable(width, width), *separable(width, 2 * width), nn.AdaptiveAvgPool1d(1), nn.Flatten(),
            nn.Dropout(0.1), nn.Linear(2 * width, keywords),
        )  # fmt: skip


class ResNet8(nn.Module):
    """The image classifier of MLPerf Tiny (Banbury et al., arXiv:2106.07597): three stages of one residual block."""

    class Block(nn.Module):
        """Two convolutions and a shortcut."""

        def __init__(self, inputs: int, outputs: int, stride: int):
            super().__init__()
            self.first = _convolution(inputs, outputs, stride=stride)
            self.second = nn.Sequential(nn.Conv2d(outputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs))
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride) if stride > 1 else nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            """x: (batch, inputs, H, W)."""
            return F.relu(self.second(self.first(x)) + self.shortcut(x))

    def __init__(self, classes: int = 10):
        super().__init__()
        self.stem = _convolution(3, 16)
        self.stages = nn.Sequential(self.Block(16, 16, 1), self.Block(16, 32, 2), self.Block(32, 64, 2))
        self.head = nn.Linear(64, classes)

    def forward(self, image: Tensor) -> Tensor:
        """image: (batch, 3, 32, 32) -> (batch, classes)."""
        return self.head(F.avg_pool2d(self.stages(self.stem(image)), 8).flatten(1))


class AnchorFreeDetector(nn.Module):
    """A backbone and two heads with one set of weights on two levels, as in FCOS (Tian et al., arXiv:1904.01355).

    Returns a dictionary: scores of every place, and distances to the four sides of the box in units of its stride.
    """

    def __init__(self, width: int = 16, classes: int = 3):
        super().__init__()
        self.stem, self.down = _convolution(3, width, stride=4), _convolution(width, width, stride=2)
        self.lateral = nn.Conv2d(width, width, 1)
        self.tower = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.GroupNorm(4, width), nn.SiLU())
        self.classes, self.boxes = nn.Conv2d(width, classes, 3, padding=1), nn.Conv2d(width, 4, 3, padding=1)
        self.scales = nn.Parameter(torch.tensor([0.5, 1.0]))

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """image: (batch, 3, H, W) -> scores (batch, places, classes), boxes (batch, places, 4)."""
        fine = self.stem(image)
        coarse = self.down(fine)
        fine = self.lateral(fine) + F.interpolate(coarse, scale_factor=2.0, mode="nearest")
        scores, boxes = [], []
        for level, features in enumerate((fine, coarse)):
            features = self.tower(features)
            scores.append(self.classes(features).sigmoid().flatten(2).transpose(1, 2))
            boxes.append(F.softplus(self.boxes(features) * self.scales[level]).flatten(2).transpose(1, 2))
        return {"scores": torch.cat(scores, dim=1), "boxes": torch.cat(boxes, dim=1)}


class Tagger(nn.Module):
    """A bidirectional LSTM that gives every token a tag."""

    def __init__(self, vocabulary: int = 64, width: int = 16, tags: int = 5):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width, padding_idx=0)
        self.lstm = nn.LSTM(width, width, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * width, tags)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens: (batch, T) of int64 -> (batch, T, tags)."""
        states, _ = self.lstm(self.embedding(tokens))
        return self.head(states)


class Forecaster(nn.Module):
    """A GRU that reads a series and says its next values."""

    def __init__(self, channels: int = 3, width: int = 16, horizon: int = 4):
        super().__init__()
        self.gru = nn.GRU(channels, width, num_layers=2, batch_first=True)
        self.head = nn.Linear(width, horizon)

    def forward(self, series: Tensor) -> Tensor:
        """series: (batch, T, channels) -> (batch, horizon)."""
        _, last = self.gru(series)
        return self.head(last[-1])


class Autoencoder(nn.Module):
    """Convolutions down to a code and transposed ones up again."""

    def __init__(self, width: int = 8):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, width, 3, stride=2, padding=1), nn.LeakyReLU(0.1),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), nn.LeakyReLU(0.1),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
            nn.ConvTranspose2d(width, 1, 3, stride=2, padding=1, output_padding=1), nn.Sigmoid(),
        )  # fmt: skip

    def forward(self, image: Tensor) -> Tensor:
        """image: (batch, 1, H, W) with H and W divisible by 4 -> the same shape."""
        return self.decoder(self.encoder(image))


class PictureAndRecord(nn.Module):
    """A picture and a row of numbers in, a class and a regression out."""

    def __init__(self, numbers: int = 6, width: int = 16, classes: int = 3):
        super().__init__()
        self.picture = nn.Sequential(_convolution(3, width, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.record = nn.Sequential(nn.Linear(numbers, width), nn.Tanh())
        self.gate = nn.Linear(2 * width, width)
        self.kind, self.size = nn.Linear(width, classes), nn.Linear(width, 1)

    def forward(self, picture: Tensor, *, record: Tensor) -> tuple[Tensor, Tensor]:
        """picture: (batch, 3, H, W), record: (batch, numbers) -> (batch, classes), (batch, 1)."""
        picture, record = self.picture(picture), self.record(record)
        gate = torch.sigmoid(self.gate(torch.cat([picture, record], dim=1)))
        joined = gate * picture + (1 - gate) * record
        return self.kind(joined), self.size(joined)


#: Name in the table -> what makes the network, and the inputs of a batch of any size.
NETWORKS = {
    "U-Net": lambda: (UNet(), lambda batch: {"image": torch.randn(batch, 3, 32, 32)}),
    "DS-CNN": lambda: (KeywordSpotter(), lambda batch: {"input": torch.randn(batch, 1, 8000)}),
    "ResNet-8": lambda: (ResNet8(), lambda batch: {"image": torch.randn(batch, 3, 32, 32)}),
    "Anchor-free detector": lambda: (AnchorFreeDetector(), lambda batch: {"image": torch.randn(batch, 3, 32, 32)}),
    "LSTM tagger": lambda: (Tagger(), lambda batch: {"tokens": torch.randint(0, 64, (batch, 16))}),
    "GRU forecaster": lambda: (Forecaster(), lambda batch: {"series": torch.randn(batch, 16, 3)}),
    "Autoencoder": lambda: (Autoencoder(), lambda batch: {"image": torch.rand(batch, 1, 16, 16)}),
    "Two inputs, two outputs": lambda: (
        PictureAndRecord(),
        lambda batch: {"picture": torch.randn(batch, 3, 16, 16), "record": torch.randn(batch, 6)},
    ),
}
