"""Codes chosen by a mask or by their size, or mirrored."""

from collections.abc import Sequence

import torch
from torch import Tensor

from qat.integer.operations import ArgMax, TopKIndices, TopKValues
from qat.integer.values import Grid


def negate(codes: Tensor, grid: Grid) -> Tensor:
    """quant_min + quant_max - code."""
    total = grid.quant_min + grid.quant_max
    return codes.bitwise_not() if total == -1 else (total - codes.to(torch.int32)).to(grid.dtype)


def select(operands: Sequence[Tensor]) -> Tensor:
    """The second operand where the first is 1, else the third; broadcast, constants over the batch as well."""
    mask, first, second = operands
    return torch.where(mask == 1, first, second)


def arg_max(operation: ArgMax, codes: Tensor) -> Tensor:
    """Index of the first of the largest codes along a dimension, int64."""
    # torch.argmax does not say which of equals it gives.
    largest = codes == codes.amax(operation.dim, keepdim=True)
    places = torch.arange(codes.shape[operation.dim], device=codes.device)
    places = places.reshape(-1, *[1] * (codes.dim() - operation.dim - 1))
    return torch.where(largest, places, codes.shape[operation.dim]).amin(operation.dim, keepdim=operation.keepdim)


def top_values(operation: TopKValues, codes: Tensor) -> Tensor:
    """The most extreme codes along a dimension."""
    return _top(operation, codes)[0]


def top_indices(operation: TopKIndices, codes: Tensor) -> Tensor:
    """Where the most extreme codes lie, int64."""
    return _top(operation, codes)[1]


def _top(operation: TopKValues, codes: Tensor) -> tuple[Tensor, Tensor]:
    # torch.topk does not say which of equals comes first; a stable sort does.
    ordered = codes.sort(dim=operation.dim, descending=operation.largest, stable=True)
    return tuple(part.narrow(operation.dim, 0, operation.k).contiguous() for part in ordered)
