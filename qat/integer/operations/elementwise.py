"""Arithmetic element by element: sums, products, another grid."""

import math
from dataclasses import dataclass
from typing import ClassVar

from qat.integer.fixed_point import Multiplier, SumMultipliers
from qat.integer.geometry import broadcast_shape
from qat.integer.operations.base import ComputingOperation, check_single
from qat.integer.values import Grid


@dataclass(frozen=True, eq=False, kw_only=True)
class Add(ComputingOperation):
    """Sum of two values, or of a value and a constant; broadcast. factors: `SumMultipliers.from_grids(...)`."""

    factors: SumMultipliers
    arity: ClassVar[int | None] = 2

    def output_shape(self, *shapes):
        return broadcast_shape(self.error, *shapes)


@dataclass(frozen=True, eq=False, kw_only=True)
class Mul(ComputingOperation):
    """Product of two values, or of a value and a constant; broadcast.

    multiplier: (1,), `Multiplier.from_scales(first_scale, second_scale, output_scale)`.
    """

    multiplier: Multiplier
    arity: ClassVar[int | None] = 2

    def check(self):
        check_single(self, self.multiplier)

    def output_shape(self, *shapes):
        return broadcast_shape(self.error, *shapes)


@dataclass(frozen=True, eq=False, kw_only=True)
class Requantize(ComputingOperation):
    """The same value times `factor`, on another grid; also a clamp alone.

    factor: float32, not 0. multiplier: (1,), `Multiplier.from_scales(input_scale, abs(factor), output_scale)`. Rounded
    like a product. Where factor is 1 and scale and zero point stay, nothing is rescaled, only clamped.
    """

    factor: float = 1.0
    multiplier: Multiplier

    def check(self):
        check_single(self, self.multiplier)
        if self.factor == 0 or not math.isfinite(self.factor):
            raise self.error(f"has factor {self.factor}; a factor is finite and not 0")

    def is_clamp(self, source: Grid, target: Grid) -> bool:
        """Whether codes stay what they are, apart from the clamp."""
        return source.scale == target.scale and source.zero_point == target.zero_point and self.factor == 1.0
