"""Weights of a real program: codes of few bits, with a scale for each channel or for each group of a channel."""

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from qat.errors import ProgramError
from qat.functional import from_rows
from qat.integer.values import check_dtype, check_range, check_shape

BITS = range(2, 9)


@dataclass(frozen=True, eq=False)
class RealWeight:
    """`real = scale * code`, or `scale * (code + 1/2)` where `midrise`.

    codes: int8 (C, n), the channels of the tensor first and the rest of it flat, -2^(bits-1)..2^(bits-1)-1.
    scale: float32 (C, groups), of consecutive codes of a channel, `group_size` of them in each group but the last.
    shape, axis: of the tensor that they stand for, and its dimension of channels.
    """

    codes: Tensor
    scale: Tensor
    bits: int
    midrise: bool
    group_size: int
    shape: tuple[int, ...]
    axis: int

    def __post_init__(self):
        check_shape(self.shape, "a weight")
        check_dtype(self.codes, torch.int8, "weight codes")
        check_dtype(self.scale, torch.float32, "weight scales")
        if self.bits not in BITS:
            raise ProgramError(f"weights have {self.bits} bits; they have 2 to 8.")
        if not 0 <= self.axis < len(self.shape) or self.codes.dim() != 2 or self.group_size < 1:
            raise ProgramError(f"a weight of shape {self.shape} has no channels in dimension {self.axis}.")
        channels = self.shape[self.axis]
        rest = math.prod(self.shape) // channels
        groups = -(-rest // self.group_size)
        if self.codes.shape != (channels, rest) or self.scale.shape != (channels, groups):
            raise ProgramError(
                f"a weight of shape {self.shape} has codes of {tuple(self.codes.shape)} and scales of "
                f"{tuple(self.scale.shape)}; expected ({channels}, {rest}) and ({channels}, {groups})."
            )
        half = 2 ** (self.bits - 1)
        check_range(self.codes, -half, half - 1, f"weight codes of {self.bits} bits")
        if not bool(torch.isfinite(self.scale).all()):
            raise ProgramError("weight scales are not all finite; look for NaN among the weights.")

    @functools.cached_property
    def scale_of_each(self) -> Tensor:
        """The scale of every code, (C, n)."""
        return self.scale.repeat_interleave(self.group_size, 1)[:, : self.codes.shape[1]]

    @functools.cached_property
    def real(self) -> Tensor:
        """The weights in real units, float32 in the tensor's own shape."""
        steps = self.codes.float() + 0.5 if self.midrise else self.codes.float()
        return from_rows(steps * self.scale_of_each, torch.Size(self.shape), self.axis).contiguous()

    @functools.cached_property
    def integers(self) -> Tensor:
        """What a kernel multiplies with, int8 in the tensor's own shape: a mid-rise code q is 2 q + 1 half steps."""
        codes = 2 * self.codes + 1 if self.midrise else self.codes
        return from_rows(codes, torch.Size(self.shape), self.axis).contiguous()

    @functools.cached_property
    def largest_sum(self) -> int:
        """Sum of the magnitudes of all integers, the largest of any channel."""
        moved = self.integers.movedim(self.axis, 0).flatten(1)
        return int(moved.to(torch.int64).abs().sum(1).max())

    @property
    def integer_scale(self) -> Tensor:
        """Real units of one of the `integers`, float32 (C,), where a channel has one scale."""
        if self.scale.shape[1] != 1:
            raise ProgramError("sums of integers run over whole channels; a channel with several groups has none.")
        return self.scale[:, 0] * 0.5 if self.midrise else self.scale[:, 0]

    @property
    def count(self) -> int:
        """How many weights there are."""
        return self.codes.numel()

    @property
    def packed_bytes(self) -> int:
        """Bytes of the codes at their true width."""
        return (self.count * self.bits + 7) // 8
