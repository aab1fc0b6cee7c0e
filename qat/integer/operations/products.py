"""Matrix products of two values."""

import math
from dataclasses import dataclass
from typing import ClassVar

from qat.integer.fixed_point import Multiplier
from qat.integer.geometry import broadcast_shape
from qat.integer.operations.base import (
    AnyMultiplier,
    ComputingOperation,
    check_single,
    largest_reach,
    limit_of_products,
)
from qat.integer.values import float32


@dataclass(frozen=True, eq=False, kw_only=True)
class MatMul(ComputingOperation):
    """(..., M, K) @ (..., K, N) times `factor`; leading dimensions broadcast, ranks are equal. Accumulates in int32, of
    wide codes in int64.

    factor: float32, positive. multiplier: (1,), `MatMul.multiplier_of(...)` of the scales. rounds_once: whether sums
    are rescaled in integers, rounded once (`fixed_point.requantize_once`), not as float32 does.
    """

    factor: float = 1.0
    multiplier: AnyMultiplier
    rounds_once: bool = False
    arity: ClassVar[int | None] = 2
    takes_constants: ClassVar[bool] = True

    @staticmethod
    def multiplier_of(first: float, second: float, factor: float, output: float) -> Multiplier:
        """`Multiplier.from_scales(first, fl32(second * factor), output)`: the factor is part of the second scale."""
        return Multiplier.from_scales(first, float32(second * factor), output)

    def check(self):
        check_single(self, self.multiplier)
        if not (self.factor > 0 and math.isfinite(self.factor) and float32(self.factor) == self.factor):
            raise self.error(f"has factor {self.factor}; a factor is a positive float32")

    def output_shape(self, *shapes):
        first, second = shapes
        if len(first) != len(second) or len(first) < 2 or first[-1] != second[-2]:
            raise self.error(
                f"cannot multiply {first} by {second} (without the batch); they are (..., M, K) and (..., K, N), of "
                "equally many dimensions"
            )
        return (*broadcast_shape(self.error, first[:-2], second[:-2]), first[-2], second[-1])

    def scales(self, sources, output):
        first, second = (source.grid.scale for source in sources)
        return first, float32(second * self.factor), output.grid.scale

    def check_between(self, sources, output):
        self.check_multiplier(sources, output)

    def accumulator_limit(self, sources, output):
        return limit_of_products(sources, output)

    def reach(self, sources, output):
        return sources[0].shape[-1] * math.prod(largest_reach(source.grid) for source in sources)
