"""Sums of products with constant weights: convolution and matrix product."""

from dataclasses import dataclass

import torch
from torch import Tensor

from qat.integer.geometry import Shape, check_window, count_windows
from qat.integer.operations.base import AnyMultiplier, ComputingOperation, limit_of_products
from qat.integer.values import Weight, check_dtype


@dataclass(frozen=True, eq=False, kw_only=True)
class WeightedOperation(ComputingOperation):
    """Sums of products with constant weights, plus a bias, in int32, of wide codes in int64; then requantized per
    output channel.

    weight: (O, ...). bias: int32 (O,), in units of input scale * weight scale.
    multiplier: (O,), `Multiplier.from_scales(input_scale, weight.scale, output_scale)`.
    """

    weight: Weight
    bias: Tensor
    multiplier: AnyMultiplier

    def check(self):
        channels = self.weight.codes.shape[0]
        check_dtype(self.bias, torch.int32, f"the bias of {self.name!r}")
        if self.bias.shape != (channels,) or self.multiplier.mantissa.shape != (channels,):
            raise self.error(
                f"has {channels} output channels, a bias of shape {tuple(self.bias.shape)} and multipliers of shape "
                f"{tuple(self.multiplier.mantissa.shape)}; both must be ({channels},)"
            )

    def scales(self, sources, output):
        return sources[0].grid.scale, self.weight.scale, output.grid.scale

    def check_between(self, sources, output):
        self.check_multiplier(sources, output)

    def accumulator_limit(self, sources, output):
        return limit_of_products(sources, output)

    def reach(self, sources, output):
        low, high = sources[0].grid.reach
        kernel = self.weight.kernel.flatten(1)
        bias = self.bias.to(torch.int64)
        # low <= 0 <= high: a sum is extreme where positive weights meet one end and negative ones the other.
        positive = kernel.clamp(min=0).sum(1, dtype=torch.int64)
        negative = kernel.clamp(max=0).sum(1, dtype=torch.int64)
        highest, lowest = positive * high + negative * low, positive * low + negative * high
        return int(torch.stack([highest, lowest, highest + bias, lowest + bias]).abs().max())


@dataclass(frozen=True, eq=False, kw_only=True)
class Conv(WeightedOperation):
    """Convolution over 1 to 3 spatial dimensions, zero padded. Weight (O, C / groups, *kernel); input (C, *spatial)."""

    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int

    def check(self):
        super().check()
        if self.weight.codes.dim() not in (3, 4, 5):
            raise self.error(
                f"has a weight of shape {tuple(self.weight.codes.shape)}; 1 to 3 spatial dimensions have a kernel"
            )
        if self.groups < 1 or self.weight.codes.shape[0] % self.groups:
            raise self.error(
                f"has {self.weight.codes.shape[0]} output channels, not a multiple of its {self.groups} groups"
            )
        check_window(self.error, self.kernel_size, self.stride, self.padding, self.dilation)

    @property
    def kernel_size(self) -> Shape:
        """Size of the kernel per spatial dimension."""
        return tuple(self.weight.codes.shape[2:])

    def output_shape(self, *shapes):
        channels, *spatial = shapes[0] or (0,)
        if len(spatial) != len(self.kernel_size) or channels != self.weight.codes.shape[1] * self.groups:
            raise self.error(
                f"with a weight of shape {tuple(self.weight.codes.shape)} and {self.groups} groups "
                f"cannot take (C, *spatial) {shapes[0]}"
            )
        windows = count_windows(self.error, spatial, self.kernel_size, self.stride, self.padding, self.dilation)
        return (self.weight.codes.shape[0], *windows)


@dataclass(frozen=True, eq=False, kw_only=True)
class Linear(WeightedOperation):
    """Matrix product over the last dimension. Weight (O, K); input (..., K)."""

    def check(self):
        super().check()
        if self.weight.codes.dim() != 2:
            raise self.error(f"has a weight of shape {tuple(self.weight.codes.shape)}; expected (O, K)")

    def output_shape(self, *shapes):
        if not shapes[0] or shapes[0][-1] != self.weight.codes.shape[1]:
            raise self.error(
                f"with a weight of shape {tuple(self.weight.codes.shape)} cannot take an input of {shapes[0]}"
            )
        return (*shapes[0][:-1], self.weight.codes.shape[0])
