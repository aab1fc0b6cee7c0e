"""Additions rounded half up, as the kernels of XNNPACK compute them (its qs8-vadd): integers from end to end.

The larger of the two factors has 21 bits, one half is added to the weighted sum, and a shift cuts the rest off. Nothing
is rounded but the factors themselves; compared with the kernels of an x86 processor.
"""

import math
from dataclasses import dataclass

import numpy
from torch import Tensor

from qat.errors import ProgramError
from qat.integer.values import Grid

#: The larger factor lies in 2^20..2^21: with codes of 8 bits every sum fits int32.
FACTOR_BITS = 20
#: Exponents of the larger ratio of scales for which the kernels are made, 2^-10 to below 2^8.
MIN_EXPONENT, MAX_EXPONENT = -10, 7


@dataclass(frozen=True)
class HalfUpMultipliers:
    """Factors of an addition: `(a * first_factor + b * second_factor + 2**(shift - 1)) >> shift` is its result."""

    first_factor: int
    second_factor: int
    shift: int

    def __post_init__(self):
        largest = max(self.first_factor, self.second_factor)
        if min(self.first_factor, self.second_factor) < 0 or not 2**FACTOR_BITS <= largest <= 2 ** (FACTOR_BITS + 1):
            raise ProgramError(
                f"an addition has factors {self.first_factor} and {self.second_factor}; none is negative, and the "
                f"larger lies in 2^{FACTOR_BITS}..2^{FACTOR_BITS + 1}."
            )
        if not FACTOR_BITS - MAX_EXPONENT <= self.shift <= FACTOR_BITS - MIN_EXPONENT:
            raise ProgramError(
                f"an addition has a shift of {self.shift}; it lies in "
                f"{FACTOR_BITS - MAX_EXPONENT}..{FACTOR_BITS - MIN_EXPONENT}."
            )

    @classmethod
    def from_grids(cls, first: Grid, second: Grid, output: Grid) -> "HalfUpMultipliers":
        """The factors that the kernel makes of the scales, in float32.

        Raises `ProgramError` for scales that it does not take.
        """
        ratios = [float(numpy.float32(grid.scale) / numpy.float32(output.scale)) for grid in (first, second)]
        exponent = math.frexp(max(ratios))[1] - 1
        if not MIN_EXPONENT <= exponent <= MAX_EXPONENT:
            raise ProgramError(
                f"an addition of scales {first.scale:.3g} and {second.scale:.3g} has an output of scale "
                f"{output.scale:.3g}; the larger scale over that of the output lies in 2^{MIN_EXPONENT} to below "
                f"2^{MAX_EXPONENT + 1}: look for a range that collapsed while it was observed."
            )
        shift = FACTOR_BITS - exponent
        return cls(*(round(math.ldexp(ratio, shift)) for ratio in ratios), shift)

    def steps(self, first: Tensor, second: Tensor) -> Tensor:
        """The rounded sums, codes less the zero point. first, second: integers (...), codes less their zero points."""
        return (first * self.first_factor + second * self.second_factor + (1 << (self.shift - 1))) >> self.shift


def requantize_half_up(
    first: Tensor, second: Tensor, factors: HalfUpMultipliers, grid: Grid, clamp_min: int, clamp_max: int
) -> Tensor:
    """`clamp(((first * M1 + second * M2 + 2**(shift - 1)) >> shift) + zero_point)`; codes of `grid.dtype`."""
    return factors.steps(first, second).add_(grid.zero_point).clamp_(clamp_min, clamp_max).to(grid.dtype)
