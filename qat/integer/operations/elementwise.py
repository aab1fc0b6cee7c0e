"""Arithmetic element by element: sums, products, another grid."""

import math
from dataclasses import dataclass
from typing import ClassVar

from qat.integer.fixed_point import SumMultipliers
from qat.integer.geometry import broadcast_shape
from qat.integer.half_up import HalfUpMultipliers
from qat.integer.operations.base import AnyMultiplier, ComputingOperation, check_single, largest_reach
from qat.integer.sixteen_bits import FixedSum
from qat.integer.values import Grid


@dataclass(frozen=True, eq=False, kw_only=True)
class Add(ComputingOperation):
    """Sum of two values, or of a value and a constant; broadcast.

    factors: `SumMultipliers.from_grids(...)`; of a runtime that rounds half up `HalfUpMultipliers.from_grids(...)`, of
    one with kernels for 16-bit codes `FixedSum.from_grids(...)`.
    """

    factors: SumMultipliers | HalfUpMultipliers | FixedSum
    arity: ClassVar[int | None] = 2
    takes_constants: ClassVar[bool] = True

    def output_shape(self, *shapes):
        return broadcast_shape(self.error, *shapes)

    def check_between(self, sources, output):
        kind = type(self.factors)
        if self.factors != kind.from_grids(*(source.grid for source in sources), output.grid):
            raise self.error(f"has factors that are not {kind.__name__}.from_grids of its grids")


@dataclass(frozen=True, eq=False, kw_only=True)
class Mul(ComputingOperation):
    """Product of two values, or of a value and a constant; broadcast.

    multiplier: (1,), `Multiplier.from_scales(first_scale, second_scale, output_scale)`.
    rounds_first: whether the product is rounded before the zero point is added (`requantize`), not with it
    (`requantize_product`).
    """

    multiplier: AnyMultiplier
    rounds_first: bool = False
    arity: ClassVar[int | None] = 2
    takes_constants: ClassVar[bool] = True

    def check(self):
        check_single(self, self.multiplier)

    def output_shape(self, *shapes):
        return broadcast_shape(self.error, *shapes)

    def scales(self, sources, output):
        first, second = (source.grid.scale for source in sources)
        return first, second, output.grid.scale

    def check_between(self, sources, output):
        self.check_multiplier(sources, output)

    def reach(self, sources, output):
        return math.prod(largest_reach(source.grid) for source in sources)


@dataclass(frozen=True, eq=False, kw_only=True)
class Requantize(ComputingOperation):
    """The same value times `factor`, on another grid; also a clamp alone.

    factor: float32, not 0. multiplier: (1,), `Multiplier.from_scales(input_scale, abs(factor), output_scale)`. Rounded
    like a product (rounds_first: as of `Mul`); codes of more than 8 bits once (`fixed_point.requantize_once`). Where
    factor is 1 and scale and zero point stay, nothing is rescaled, only clamped.
    """

    factor: float = 1.0
    multiplier: AnyMultiplier
    rounds_first: bool = False

    def check(self):
        check_single(self, self.multiplier)
        if self.factor == 0 or not math.isfinite(self.factor):
            raise self.error(f"has factor {self.factor}; a factor is finite and not 0")

    def scales(self, sources, output):
        return sources[0].grid.scale, abs(self.factor), output.grid.scale

    def check_between(self, sources, output):
        self.check_multiplier(sources, output)

    def is_clamp(self, source: Grid, target: Grid) -> bool:
        """Whether codes stay what they are, apart from the clamp."""
        return source.scale == target.scale and source.zero_point == target.zero_point and self.factor == 1.0
