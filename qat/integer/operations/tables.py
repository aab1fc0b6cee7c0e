"""Results that are looked up: functions of one value, and rows of an embedding."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from qat.errors import ProgramError
from qat.integer.operations.base import ComputingOperation, MovingOperation
from qat.integer.values import (
    INT8_MAX,
    INT8_MIN,
    Grid,
    IndexRange,
    Weight,
    check_dtype,
    check_range,
)


@dataclass(frozen=True, eq=False, kw_only=True)
class Table(ComputingOperation):
    """Any function of one value: the result of each code of the input, written down.

    codes: of the output grid's dtype, (n,) for the n codes quant_min..quant_max of the input grid or index range in
    this order; or (C, n), one table per index of dimension 1 (channels). `table_codes` makes them.
    function: what it is of, "gelu" for instance, for reports and for the float network; empty where it has no name.
    """

    codes: Tensor
    function: str = ""
    takes_indices: ClassVar[bool] = True

    def check(self):
        if not isinstance(self.codes, Tensor) or self.codes.dim() not in (1, 2) or not self.codes.numel():
            raise self.error(f"has codes of shape {tuple(getattr(self.codes, 'shape', ()))}; they are (n,) or (C, n)")

    def output_shape(self, *shapes):
        if self.codes.dim() == 2 and (not shapes[0] or shapes[0][0] != len(self.codes)):
            raise self.error(f"has tables for {len(self.codes)} channels and an input of (C, ...) {shapes[0]}")
        return shapes[0]

    def check_between(self, sources, output):
        grid = sources[0].grid
        check_dtype(self.codes, output.grid.dtype, f"the codes of {self.name!r}")
        check_range(self.codes, self.clamp_min, self.clamp_max, f"the codes of {self.name!r}")
        count = grid.quant_max - grid.quant_min + 1
        if self.codes.shape[-1] != count:
            raise self.error(f"has a table of {self.codes.shape[-1]} codes for an input that takes {count}")

    def reach(self, sources, output):
        return 0  # nothing is summed


def table_codes(points: Tensor, grid: Grid, clamp_min: int | None = None, clamp_max: int | None = None) -> Tensor:
    """Codes of a `Table`: clamp(round_half_even(points / scale) + zero_point).

    points: float64 (n,) or (C, n), the real result for each code of the input. clamp_min, clamp_max: codes of `grid`,
    by default its ends. Infinity saturates. Raises `ProgramError` for NaN, which has no code.
    """
    check_dtype(points, torch.float64, "the points of a table")
    if bool(points.isnan().any()):
        raise ProgramError(
            f"a function gives NaN for {int(points.isnan().sum())} of the {points.numel()} codes of its input; it must "
            "give a number for each: clamp its input to where it is defined."
        )
    low = grid.quant_min if clamp_min is None else clamp_min
    high = grid.quant_max if clamp_max is None else clamp_max
    steps = torch.round(points / torch.tensor(grid.scale, dtype=torch.float64, device=points.device))
    return (steps.clamp(low - grid.zero_point, high - grid.zero_point) + grid.zero_point).to(grid.dtype)


@dataclass(frozen=True, eq=False, kw_only=True)
class Embedding(MovingOperation):
    """Rows of a weight, chosen by indices. weight: (V, D), one scale for all rows. Input (...), output (..., D)."""

    weight: Weight

    def check(self):
        if self.weight.codes.dim() != 2 or len(set(self.weight.scale.tolist())) != 1:
            raise self.error(
                f"has a weight of shape {tuple(self.weight.codes.shape)} with {self.weight.scale.unique().numel()} "
                "scales; it is (V, D) with one scale for all rows"
            )

    def output_shape(self, *shapes):
        return (*shapes[0], self.weight.codes.shape[1])

    def output_grid(self, *sources):
        if not isinstance(sources[0].grid, IndexRange):
            raise self.error(f"is indexed by {sources[0].name!r}, which are codes of real numbers, not indices")
        if sources[0].grid.count > len(self.weight.codes):
            raise self.error(
                f"has {len(self.weight.codes)} rows, but {sources[0].name!r} counts up to {sources[0].grid.count}"
            )
        return self.kernel_grid(self.weight)

    @staticmethod
    def kernel_grid(weight: Weight) -> Grid:
        """The grid of a weight's int8 numbers, which are the codes of the output."""
        return Grid(weight.scale[0].item(), 0, INT8_MIN, INT8_MAX)
