"""Arithmetic element by element."""

from collections.abc import Sequence

import torch
from torch import Tensor

from qat.integer.fixed_point import SumMultipliers, requantize_sum
from qat.integer.half_up import HalfUpMultipliers, requantize_half_up
from qat.integer.operations import Add, Mul, Requantize
from qat.integer.rescale import rescale, rounding_of
from qat.integer.sixteen_bits import FixedSum, requantize_fixed_sum
from qat.integer.values import Grid

#: How sums become codes, by what their factors are.
_SUMS = {
    SumMultipliers: requantize_sum,
    HalfUpMultipliers: requantize_half_up,
    FixedSum: requantize_fixed_sum,
}


def add(operation: Add, operands: Sequence[Tensor], sources: Sequence[Grid], target: Grid) -> Tensor:
    """Sum of two operands that broadcast."""
    first, second = _centered_pair(operands, sources)
    rounded = _SUMS[type(operation.factors)]
    return rounded(first, second, operation.factors, target, operation.clamp_min, operation.clamp_max)


def multiply(operation: Mul, operands: Sequence[Tensor], sources: Sequence[Grid], target: Grid) -> Tensor:
    """Product of two operands that broadcast."""
    first, second = _centered_pair(operands, sources)
    return rescale((first * second)[None], operation, target, rounding_of(operation, sources[0]))[0]


def requantize(operation: Requantize, codes: Tensor, source: Grid, target: Grid) -> Tensor:
    """Codes on another grid, or clamped."""
    if operation.is_clamp(source, target):
        return codes.to(torch.int32).clamp(operation.clamp_min, operation.clamp_max).to(target.dtype)
    sign = 1 if operation.factor > 0 else -1
    products = (codes.to(torch.int32) - source.zero_point) * sign
    return rescale(products[None], operation, target, rounding_of(operation, source))[0]


def _centered_pair(operands: Sequence[Tensor], sources: Sequence[Grid]) -> list[Tensor]:
    """Operands less their zero points; products and sums of 8-bit codes fit int32, those of wider ones int64."""
    dtype = torch.int32 if all(grid.bits <= 8 for grid in sources) else torch.int64
    return [codes.to(dtype) - grid.zero_point for codes, grid in zip(operands, sources, strict=True)]
