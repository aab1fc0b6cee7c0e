"""Arithmetic of indices: what networks compute positions and choices from. Nothing is rounded, nothing rescaled."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from qat.integer.geometry import broadcast_shape
from qat.integer.operations.base import MovingOperation
from qat.integer.values import Constant, IndexRange, Value, check_dtype, check_range


@dataclass(frozen=True, eq=False, kw_only=True)
class IndexOperation(MovingOperation):
    """Makes indices of indices."""

    def range_of(self, source: Value | Constant) -> IndexRange:
        """The range of an input, which must hold indices."""
        if not isinstance(source.grid, IndexRange):
            raise self.error(f"counts with {source.name!r}, which are codes of real numbers, not indices")
        return source.grid


@dataclass(frozen=True, eq=False, kw_only=True)
class IndexTable(IndexOperation):
    """Any function of one index that gives an index. codes: int64 (n,), the result for each of the n of the input.

    count: how many indices the output's range has, more than the largest of `codes`.
    """

    codes: Tensor
    count: int

    def check(self):
        check_dtype(self.codes, torch.int64, f"the codes of {self.name!r}")
        check_range(self.codes, 0, IndexRange(self.count).quant_max, f"the codes of {self.name!r}")
        if self.codes.dim() != 1 or not self.codes.numel():
            raise self.error(f"has codes of shape {tuple(self.codes.shape)}; they are (n,), at least one")

    def output_grid(self, *sources):
        if len(self.codes) != self.range_of(sources[0]).count:
            raise self.error(f"has a table of {len(self.codes)} for an input of {sources[0].grid.count} indices")
        return IndexRange(self.count)


@dataclass(frozen=True, eq=False, kw_only=True)
class IndexSum(IndexOperation):
    """Sum of two inputs, one of which may be constant; broadcast."""

    arity: ClassVar[int | None] = 2
    takes_constants: ClassVar[bool] = True

    def output_shape(self, *shapes):
        return broadcast_shape(self.error, *shapes)

    def output_grid(self, *sources):
        first, second = map(self.range_of, sources)
        return IndexRange(first.quant_max + second.quant_max + 1)


@dataclass(frozen=True, eq=False, kw_only=True)
class IndexProduct(IndexSum):
    """Product of two inputs, one of which may be constant; broadcast."""

    def output_grid(self, *sources):
        first, second = map(self.range_of, sources)
        return IndexRange(first.quant_max * second.quant_max + 1)


@dataclass(frozen=True, eq=False, kw_only=True)
class CumulativeSum(IndexOperation):
    """Sum of all entries along `dim` up to each, itself included."""

    dim: int

    def output_shape(self, *shapes):
        if not 1 <= self.dim <= len(shapes[0]):
            raise self.error(f"adds along dimension {self.dim} of an input of {shapes[0]}; the batch is dimension 0")
        return shapes[0]

    def output_grid(self, *sources):
        return IndexRange(self.range_of(sources[0]).quant_max * int(sources[0].shape[self.dim - 1]) + 1)


@dataclass(frozen=True, eq=False, kw_only=True)
class Gather(MovingOperation):
    """Inputs (values, indices): along `dim` the entry that each index names; elsewhere indices stand at their entry.

    Both have equally many dimensions; indices, and so the output, are no larger than values but along `dim`.
    """

    dim: int
    arity: ClassVar[int | None] = 2

    def output_shape(self, *shapes):
        values, indices = shapes
        axis = self.dim - 1
        if (
            not 1 <= self.dim <= len(values)
            or len(values) != len(indices)
            or any(
                wanted > size for place, (size, wanted) in enumerate(zip(values, indices, strict=True)) if place != axis
            )
        ):
            raise self.error(f"cannot take {indices} entries along dimension {self.dim} of {values}")
        return indices

    def output_grid(self, *sources):
        values, indices = sources
        size = values.shape[self.dim - 1]
        if not isinstance(indices.grid, IndexRange) or indices.grid.count > size:
            raise self.error(f"takes entries of {size} by {indices.name!r} on {indices.grid}; indices must lie inside")
        return values.grid
