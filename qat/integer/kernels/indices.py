"""Arithmetic of int64 indices."""

from collections.abc import Sequence

from torch import Tensor

from qat.integer.operations import CumulativeSum, Gather, IndexTable


def look_up(operation: IndexTable, indices: Tensor) -> Tensor:
    """The table's entry for each index."""
    return operation.codes.to(indices.device)[indices]


def add(operands: Sequence[Tensor]) -> Tensor:
    """Sum of two operands that broadcast."""
    return operands[0] + operands[1]


def multiply(operands: Sequence[Tensor]) -> Tensor:
    """Product of two operands that broadcast."""
    return operands[0] * operands[1]


def cumulate(operation: CumulativeSum, indices: Tensor) -> Tensor:
    """Sum up to each entry."""
    return indices.cumsum(operation.dim)


def gather(operation: Gather, operands: Sequence[Tensor]) -> Tensor:
    """Entries of the first operand, chosen by the second."""
    values, indices = operands
    return values.gather(operation.dim, indices)
