"""Many codes become one: windows and whole dimensions, their means and their extremes."""

import dataclasses
import math
from dataclasses import dataclass

from qat.integer.geometry import Shape, check_spatial, check_window, count_windows, reduced_shape
from qat.integer.operations.base import (
    AnyMultiplier,
    ComputingOperation,
    MovingOperation,
    check_single,
    largest_reach,
)
from qat.integer.values import Constant, Value, float32


@dataclass(frozen=True, eq=False, kw_only=True)
class AveragePool(ComputingOperation):
    """Mean over windows of a (C, *spatial) input; padding counts as zeros in the mean.

    multiplier: (1,), `Multiplier.from_scales(input_scale, 1 / window size, output_scale)`.
    """

    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    multiplier: AnyMultiplier

    def check(self):
        check_single(self, self.multiplier)
        check_window(self.error, self.kernel_size, self.stride, self.padding, (1,) * len(self.kernel_size))

    @property
    def count(self) -> int:
        """How many elements a mean is over."""
        return math.prod(self.kernel_size)

    def output_shape(self, *shapes):
        channels, *spatial = check_spatial(self.error, shapes[0], self.kernel_size)
        ones = (1,) * len(self.kernel_size)
        return (channels, *count_windows(self.error, spatial, self.kernel_size, self.stride, self.padding, ones))

    def scales(self, sources, output):
        return sources[0].grid.scale, float32(1 / self.count), output.grid.scale

    def check_between(self, sources, output):
        self.check_multiplier(sources, output)

    def reach(self, sources, output):
        return self.count * largest_reach(sources[0].grid)


@dataclass(frozen=True, eq=False, kw_only=True)
class Reduction(ComputingOperation):
    """Sums over `dims`, rescaled.

    multiplier: (1,), `Multiplier.from_scales(input_scale, share(element count), output_scale)`.
    """

    dims: tuple[int, ...]
    keepdim: bool
    multiplier: AnyMultiplier

    def check(self):
        check_single(self, self.multiplier)

    @staticmethod
    def share(count: int) -> float:
        """What each of `count` elements weighs in the result, float32."""
        raise NotImplementedError

    def output_shape(self, *shapes):
        return reduced_shape(self.error, shapes[0], self.dims, self.keepdim)

    def refitted(self, sources, output):
        return dataclasses.replace(self, multiplier=self.multiplier.remade(*self.scales(sources, output)))

    def scales(self, sources, output):
        share = self.share(_summed_count(sources[0], output))
        return sources[0].grid.scale, share, output.grid.scale

    def check_between(self, sources, output):
        self.check_multiplier(sources, output)

    def reach(self, sources, output):
        return _summed_count(sources[0], output) * largest_reach(sources[0].grid)


@dataclass(frozen=True, eq=False, kw_only=True)
class Mean(Reduction):
    """Mean over `dims`."""

    @staticmethod
    def share(count):
        return float32(1 / count)


@dataclass(frozen=True, eq=False, kw_only=True)
class Sum(Reduction):
    """Sum over `dims`."""

    @staticmethod
    def share(count):
        return 1.0


@dataclass(frozen=True, eq=False, kw_only=True)
class MaxPool(MovingOperation):
    """Largest code of each window of a (C, *spatial) input; padding never wins. ceil_mode: windows may overhang."""

    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    ceil_mode: bool

    def check(self):
        check_window(self.error, self.kernel_size, self.stride, self.padding, self.dilation)
        for size, (before, after) in zip(self.kernel_size, self.padding, strict=True):
            if max(before, after) > size // 2:
                raise self.error(
                    f"pads {self.padding} around windows of {self.kernel_size}; at most half a window is possible"
                )

    def output_shape(self, *shapes):
        channels, *spatial = check_spatial(self.error, shapes[0], self.kernel_size)
        return (
            channels,
            *count_windows(
                self.error, spatial, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode
            ),
        )

    def full_padding(self, shape: Shape) -> tuple[tuple[int, int], ...]:
        """The padding with which every window lies inside, even one that overhangs. shape: input (C, *spatial)."""
        amounts = []
        geometry = zip(
            shape[1:],
            self.output_shape(shape)[1:],
            self.kernel_size,
            self.stride,
            self.dilation,
            self.padding,
            strict=True,
        )
        for size, count, kernel, step, spread, (before, after) in geometry:
            needed = (count - 1) * step + spread * (kernel - 1) + 1 - size - before
            amounts.append((before, max(after, needed)))
        return tuple(amounts)


@dataclass(frozen=True, eq=False, kw_only=True)
class Max(MovingOperation):
    """Largest code over `dims` (amax)."""

    dims: tuple[int, ...]
    keepdim: bool

    def output_shape(self, *shapes):
        return reduced_shape(self.error, shapes[0], self.dims, self.keepdim)


def _summed_count(source: Value | Constant, output: Value) -> int:
    """How many codes of `source` one code of `output` is of."""
    return math.prod(source.shape) // math.prod(output.shape)
