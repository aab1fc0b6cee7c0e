"""Division of one value by another."""

import math
from dataclasses import dataclass
from typing import ClassVar

from qat.integer.geometry import broadcast_shape
from qat.integer.operations.base import ComputingOperation, largest_reach
from qat.integer.values import Grid

#: Bits of a numerator, half of which a divisor leaves: of 8-bit codes they fit int32, of wider ones int64.
_NARROW_BITS, _WIDE_BITS = 30, 60


@dataclass(frozen=True)
class Ratio:
    """A positive factor `numerator / 2**shift`, so short that it can be multiplied with a code."""

    numerator: int
    shift: int

    @classmethod
    def from_grids(cls, first: Grid, second: Grid, output: Grid) -> "Ratio":
        """first scale / (second scale * output scale), with as many bits as leave int32 (of wide codes int64) whole."""
        narrow = max(first.bits, second.bits, output.bits) <= 8
        room = (_NARROW_BITS if narrow else _WIDE_BITS) - max(largest_reach(first), largest_reach(second)).bit_length()
        ratio = first.scale / second.scale / output.scale
        shift = max(min(room, room - math.ceil(math.log2(ratio))), 0)
        return cls(min(max(round(math.ldexp(ratio, shift)), 1), 2**room), shift)


@dataclass(frozen=True, eq=False, kw_only=True)
class Divide(ComputingOperation):
    """One value over another, broadcast; either may be a constant. A divisor of 0 counts as its smallest positive step.

    ratio: `Ratio.from_grids(first grid, second grid, output grid)`. The result is
    `round(a * numerator / (b << shift)) + zero_point` of the centered codes a and b, ties away from zero.
    """

    ratio: Ratio
    arity: ClassVar[int | None] = 2
    takes_constants: ClassVar[bool] = True

    def output_shape(self, *shapes):
        return broadcast_shape(self.error, *shapes)

    def check_between(self, sources, output):
        if self.ratio != Ratio.from_grids(*(source.grid for source in sources), output.grid):
            raise self.error("has a ratio that is not Ratio.from_grids of its grids")

    def reach(self, sources, output):
        return 0  # `Ratio` chooses its bits so that nothing overflows
