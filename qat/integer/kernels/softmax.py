"""Softmax on codes."""

from collections.abc import Sequence

import torch
from torch import Tensor

from qat.integer.operations import Softmax
from qat.integer.values import Grid


def softmax(operation: Softmax, operands: Sequence[Tensor], sources: Sequence[Grid], target: Grid) -> Tensor:
    """operands: codes (N, ...), and where there is one a mask that broadcasts to them. Returns codes (N, ...)."""
    factors = operation.factors
    parts = exponentials(factors.exponentials, operands, sources[0], operation.dim)
    numerators = parts.to(torch.int64) << factors.numerator_shift
    divisors = divisor(parts.sum(operation.dim, keepdim=True, dtype=torch.int64), operation)
    steps = torch.div(numerators.add_(divisors >> 1), divisors, rounding_mode="trunc")
    return steps.add_(target.zero_point).clamp_(operation.clamp_min, operation.clamp_max).to(target.dtype)


def distances(operands: Sequence[Tensor], grid: Grid, dim: int) -> Tensor:
    """How far each code lies below the largest of its row that takes part, int32; of masked codes some place of the
    table."""
    codes = operands[0].to(torch.int32)
    if len(operands) == 2:
        codes = torch.where(operands[1].bool(), codes, grid.quant_min)
    return codes.amax(dim, keepdim=True) - codes


def exponentials(table: Tensor, operands: Sequence[Tensor], grid: Grid, dim: int) -> Tensor:
    """Entries of `table` by distance, 0 where masked; int32 (N, ...)."""
    places = distances(operands, grid, dim)
    found = table.to(places.device).index_select(0, places.flatten()).reshape(places.shape)
    return found * operands[1].to(torch.int32) if len(operands) == 2 else found


def divisor(sums: Tensor, operation: Softmax) -> Tensor:
    """What numerators of a row are divided by, at least 1. sums: int64, of exponentials."""
    factors = operation.factors
    half = (1 << factors.divisor_shift) >> 1
    return ((sums * factors.divisor_factor + half) >> factors.divisor_shift).clamp_(1, factors.divisor_limit)
