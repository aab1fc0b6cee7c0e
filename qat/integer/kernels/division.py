"""Division on codes."""

from collections.abc import Sequence

import torch
from torch import Tensor

from qat.integer.operations import Divide
from qat.integer.values import Grid


def divide(operation: Divide, operands: Sequence[Tensor], sources: Sequence[Grid], target: Grid) -> Tensor:
    """operands: codes (N, ...) of both, which broadcast. Returns codes (N, ...)."""
    # `Ratio` leaves room for a numerator and half a divisor.
    dtype = torch.int32 if max(grid.bits for grid in (*sources, target)) <= 8 else torch.int64
    first, second = (codes.to(dtype) - grid.zero_point for codes, grid in zip(operands, sources, strict=True))
    divisors = second.abs().clamp_(min=1) << operation.ratio.shift
    magnitudes = (first.abs() * operation.ratio.numerator).add(divisors >> 1).div_(divisors, rounding_mode="trunc")
    # 2 * b + 1 has the sign of b, and that of a positive step for 0.
    for part, grid in zip((first, second * 2 + 1), sources, strict=True):
        if grid.reach[0] < 0:
            magnitudes = magnitudes * part.sign()
    steps = magnitudes.add_(target.zero_point)
    return steps.clamp_(operation.clamp_min, operation.clamp_max).to(target.dtype)
