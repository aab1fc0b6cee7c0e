"""Codes that are chosen or mirrored, and where the largest lie."""

from dataclasses import dataclass, replace
from typing import ClassVar

from qat.integer.geometry import Shape, broadcast_shape
from qat.integer.operations.base import MovingOperation
from qat.integer.values import Grid, IndexRange

#: The grid of masks: 0 is false, 1 is true.
MASK_GRID = Grid(1.0, 0, 0, 1)


@dataclass(frozen=True, eq=False, kw_only=True)
class Negate(MovingOperation):
    """Minus the input: code' = quant_min + quant_max - code, on the grid with its zero point mirrored likewise."""

    takes_indices: ClassVar[bool] = False

    def output_grid(self, *sources):
        return self.mirrored(sources[0].grid)

    @staticmethod
    def mirrored(grid: Grid) -> Grid:
        """The grid of minus what is on `grid`."""
        return replace(grid, zero_point=grid.quant_min + grid.quant_max - grid.zero_point)


@dataclass(frozen=True, eq=False, kw_only=True)
class Select(MovingOperation):
    """Inputs (mask, first, second): codes of `first` where the mask is 1, of `second` where it is 0; broadcast.

    The mask is on `MASK_GRID`, both others on one grid, which is the output's.
    """

    arity: ClassVar[int | None] = 3
    takes_constants: ClassVar[bool] = True

    def output_shape(self, *shapes):
        mask, first, second = shapes
        return broadcast_shape(self.error, mask, broadcast_shape(self.error, first, second))

    def output_grid(self, *sources):
        mask, *others = sources
        if mask.grid != MASK_GRID:
            raise self.error(f"has a mask {mask.name!r} on {mask.grid}; a mask is on {MASK_GRID}")
        return self.common_grid(others)


@dataclass(frozen=True, eq=False, kw_only=True)
class ArgMax(MovingOperation):
    """Index of the largest code along `dim`; the first among equals. The output is an `IndexRange`."""

    dim: int
    keepdim: bool

    def output_shape(self, *shapes):
        return _along(self, shapes[0], self.dim, (1,) if self.keepdim else ())

    def output_grid(self, *sources):
        return IndexRange(sources[0].shape[self.dim - 1])


@dataclass(frozen=True, eq=False, kw_only=True)
class TopKValues(MovingOperation):
    """The `k` largest (or smallest) codes along `dim`, the most extreme first."""

    dim: int
    k: int
    largest: bool

    def output_shape(self, *shapes):
        shape = _along(self, shapes[0], self.dim, (self.k,))
        if not 1 <= self.k <= shapes[0][self.dim - 1]:
            raise self.error(f"takes {self.k} of the {shapes[0][self.dim - 1]} entries of dimension {self.dim}")
        return shape


@dataclass(frozen=True, eq=False, kw_only=True)
class TopKIndices(TopKValues):
    """Where `TopKValues` lie; the first of equals comes first. The output is an `IndexRange`."""

    def output_grid(self, *sources):
        return IndexRange(sources[0].shape[self.dim - 1])


def _along(operation: MovingOperation, shape: Shape, dim: int, sizes: tuple[int, ...]) -> Shape:
    """`shape` with dimension `dim` replaced by `sizes`."""
    if not 1 <= dim <= len(shape):
        raise operation.error(f"looks along dimension {dim} of an input of {shape}; the batch is dimension 0")
    return (*shape[: dim - 1], *sizes, *shape[dim:])
