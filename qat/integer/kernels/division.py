"""Division on codes."""

from collections.abc import Sequence

import torch
from torch import Tensor

from qat.integer.operations import Divide
from qat.integer.values import Grid


def divide(operation: Divide, operands: Sequence[Tensor], sources: Sequence[Grid], target: Grid) -> Tensor:
    """operands: codes (N, ...) of both, which broadcast. Returns codes (N, ...)."""
    first, second = (codes.to(torch.int64) - grid.zero_point for codes, grid in zip(operands, sources, strict=True))
    second = torch.where(second == 0, 1, second)
    divisors = second.abs() << operation.ratio.shift
    magnitudes = (first.abs() * operation.ratio.numerator + (divisors >> 1)) // divisors
    steps = torch.where((first < 0) ^ (second < 0), -magnitudes, magnitudes)
    return steps.add_(target.zero_point).clamp_(operation.clamp_min, operation.clamp_max).to(target.dtype)
