"""How the bytes of a picture become the real numbers that a network takes, and back.

`normalize` is what data pipelines compute in float32, in this order: (pixel / largest - mean) / std.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qat.errors import ConfigurationError, ProgramError
from qat.integer.reals import quantize
from qat.integer.values import Grid, float32

#: Values of a byte.
PIXELS = 256
#: Least divisor of pixels in 0..1; what is normalized is far inside float32.
SMALLEST_STD = 1e-6
#: Dimensions of pictures behind the batch, (channels, ...): signals, images, volumes.
RANKS = range(2, 5)


@dataclass(frozen=True)
class ImageScaling:
    """real = (pixel / largest - mean) / std, each operation rounded to float32.

    mean, std: of pixels scaled to 0..1, one for all channels or one for each; a number stands for one.
    largest: the pixel that becomes 1.0 before `mean` and `std`.
    channels_last: whether pictures are (N, ..., C) where the network takes (N, C, ...).
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    largest: int = 255
    channels_last: bool = False

    def __post_init__(self):
        for name in ("mean", "std"):
            object.__setattr__(self, name, _numbers(name, getattr(self, name)))
        if min(len(self.mean), len(self.std)) != 1 and len(self.mean) != len(self.std):
            raise ProgramError(
                f"mean has {len(self.mean)} numbers and std {len(self.std)}; give one for all, or one for each channel."
            )
        if any(number < SMALLEST_STD for number in self.std):
            raise ProgramError(f"std is {list(self.std)}; what pixels are divided by is {SMALLEST_STD} or more.")
        if type(self.largest) is not int or not 1 <= self.largest < PIXELS:
            raise ProgramError(f"largest is {self.largest!r}; it is a pixel from 1 to {PIXELS - 1}.")
        if not isinstance(self.channels_last, bool):
            raise ProgramError(f"channels_last is {self.channels_last!r}; write True or False.")

    @property
    def grid(self) -> Grid:
        """The grid of pixels, of which 0..1 before mean and std are the real numbers."""
        return Grid(float32(1 / self.largest), 0, 0, PIXELS - 1)

    @property
    def channels(self) -> int:
        """How many channels have numbers of their own; 1 where all have the same."""
        return max(len(self.mean), len(self.std))

    def normalize(self, pictures: Tensor) -> Tensor:
        """What the network takes, float32 (N, C, ...). pictures: uint8 (N, C, ...), or (N, ..., C) if channels last."""
        if self.channels_last:
            pictures = pictures.movedim(-1, 1)
        mean, std = (self._of_channels(numbers, pictures.dim() - 2) for numbers in (self.mean, self.std))
        # a tensor: some devices divide by a number with its reciprocal
        return (pictures.to(torch.float32) / torch.tensor(float(self.largest)) - mean) / std

    def table(self, grid: Grid) -> Tensor:
        """Codes on `grid` of every pixel of every channel: (channels, 256) of its dtype."""
        pixels = torch.arange(PIXELS, dtype=torch.uint8).expand(1, self.channels, PIXELS)
        normalized = ImageScaling(self.mean, self.std, self.largest).normalize(pixels)
        return quantize(normalized, grid)[0]

    def pictures(self, real: Tensor, grid: Grid) -> Tensor:
        """The uint8 pictures of which `real` (N, C, ...) are the normalized numbers.

        grid: of the network's input. Raises `ConfigurationError` where pictures and numbers have other codes on it.
        """
        mean, std = (self._of_channels(numbers, real.dim() - 2, torch.float64) for numbers in (self.mean, self.std))
        pixels = ((real.to(torch.float64) * std + mean) * self.largest).round().clamp(0, PIXELS - 1).to(torch.uint8)
        pictures = pixels.movedim(1, -1).contiguous() if self.channels_last else pixels
        differing = int((quantize(self.normalize(pictures), grid) != quantize(real.to(torch.float32), grid)).sum())
        if differing:
            raise ConfigurationError(
                f"{differing} of {real.numel()} numbers are not (pixel / {self.largest} - mean) / std of whole pixels, "
                f"mean {list(self.mean)} and std {list(self.std)}; give those that the data is normalized with."
            )
        return pictures

    def _of_channels(self, numbers: tuple[float, ...], places: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """float32 numbers as (C, 1, ...). places: dimensions behind the channels."""
        return torch.tensor(numbers, dtype=torch.float32).to(dtype).reshape(-1, *[1] * places)


def check_fits(scaling: ImageScaling, name: str, shape: Sequence[int], is_real: bool) -> None:
    """Refuse an input that cannot be a picture. name, shape (without the batch): of the input.

    is_real: whether the network takes real numbers there, and no indices.
    """
    if not is_real or len(shape) not in RANKS:
        what = f"of shape {tuple(shape)}" if is_real else "made of indices"
        raise ProgramError(f"input {name!r} is {what}; a picture is real, (channels, height, width) behind the batch.")
    if scaling.channels not in (1, shape[0]):
        raise ProgramError(
            f"mean and std are of {scaling.channels} channels, but input {name!r} has {shape[0]}; give one number for "
            "all channels, or one for each."
        )


def _numbers(name: str, given) -> tuple[float, ...]:
    """Finite numbers of one or more channels."""
    numbers = (given,) if isinstance(given, int | float) else tuple(given)
    if not numbers or not all(isinstance(number, int | float) and math.isfinite(number) for number in numbers):
        raise ProgramError(f"{name} is {given!r}; give a number, or one for each channel.")
    return tuple(map(float, numbers))
