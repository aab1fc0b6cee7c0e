"""Rescaling of 16-bit codes as TensorFlow Lite's kernels compute it: fixed point throughout, no floating point.

A factor of scales is a mantissa of 31 bits and a power of two, `QuantizeMultiplier` of its quantization_util.cc.
Kernels then differ in how they multiply by it:
- `REDUCED`: by the upper 15 bits of the mantissa, rounded half up once (`MultiplyByQuantizedMultiplier` of 64-bit
  sums): convolutions, depthwise convolutions and products of two matrices;
- `SINGLE`: by all of it, rounded half up once: both operands of a sum;
- `DOUBLE`: by all of it, rounded half up after the mantissa and half away from zero after the power of two
  (`MultiplyByQuantizedMultiplier` of 32-bit numbers): products element by element, and sums of two operands.

Compared with the kernels of ai-edge-litert 2.3 on an x86 processor. All zero points are 0.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from qat.errors import ProgramError
from qat.integer.fixed_point import check_factor_parts
from qat.integer.values import Grid

REDUCED, SINGLE, DOUBLE = "reduced", "single", "double"
#: Kinds of multipliers that an operation may have.
KINDS = (REDUCED, DOUBLE)
#: Bits of a mantissa, and of those that 64-bit sums are multiplied by.
MANTISSA_BITS, REDUCED_BITS = 31, 15
_BITS = {REDUCED: REDUCED_BITS, SINGLE: MANTISSA_BITS, DOUBLE: MANTISSA_BITS}
#: Powers of two that kernels multiply a mantissa of 1/2 to below 1 by; 32-bit numbers are raised by up to 30 bits.
MIN_SHIFT = -31
_MAX_SHIFT = {REDUCED: 7, DOUBLE: 30}
#: Codes are raised by so much before they are added.
SUM_SHIFT = 15


@dataclass(frozen=True, eq=False)
class FixedMultiplier:
    """Factors as integers, one per output channel or a single one: `mantissa * 2**exponent`.

    mantissa: int32 (O,), of 15 bits where kind is `REDUCED`, else of 31. exponent: int32 (O,). kind: one of `KINDS`.
    """

    mantissa: Tensor
    exponent: Tensor
    kind: str

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ProgramError(f"a multiplier is of kind {self.kind!r}; known are {', '.join(KINDS)}.")
        check_factor_parts(self.mantissa, self.exponent)
        bits = _BITS[self.kind]
        low, high = 2 ** (bits - 1), 2**bits - 1
        if int(self.mantissa.min()) < low or int(self.mantissa.max()) > high:
            raise ProgramError(f"multiplier mantissas of kind {self.kind!r} must lie in {low}..{high}.")
        if int(self.exponent.min()) < MIN_SHIFT - bits or int(self.exponent.max()) > _MAX_SHIFT[self.kind] - bits:
            raise ProgramError(
                f"multiplier exponents of kind {self.kind!r} must lie in "
                f"{MIN_SHIFT - bits}..{_MAX_SHIFT[self.kind] - bits}."
            )

    @classmethod
    def from_scales(
        cls, kind: str, input_scale: float, weight_scale: Tensor | float, output_scale: float
    ) -> "FixedMultiplier":
        """What kernels make of the scales. weight_scale: float32 (O,), or a number for a single factor.

        Raises `ProgramError` for factors that they do not take.
        """
        weight_scale = torch.as_tensor(weight_scale, dtype=torch.float32).reshape(-1)
        mantissa, exponent = factor_parts(kind, torch.tensor(input_scale), weight_scale, torch.tensor(output_scale))
        shift = exponent + _BITS[kind]
        if int(shift.min()) < MIN_SHIFT or int(shift.max()) > _MAX_SHIFT[kind]:
            raise ProgramError(
                f"a multiplier lies in 2^{int(shift.min()) - 1}..2^{int(shift.max())}, and kernels of 16-bit codes "
                f"take 2^{MIN_SHIFT - 1} to below 2^{_MAX_SHIFT[kind]}: the scales of the operation's inputs, weights "
                "and output lie too far apart; look for a range that collapsed while it was observed."
            )
        return cls(mantissa.to(torch.int32), exponent.to(torch.int32), kind)

    def remade(self, input_scale: float, weight_scale: Tensor | float, output_scale: float) -> "FixedMultiplier":
        """One of the same kind, of other scales."""
        return self.from_scales(self.kind, input_scale, weight_scale, output_scale)

    def equals(self, other: object) -> bool:
        """Whether all factors are the same, and multiply alike."""
        return (
            isinstance(other, FixedMultiplier)
            and self.kind == other.kind
            and torch.equal(self.mantissa, other.mantissa)
            and torch.equal(self.exponent, other.exponent)
        )

    def largest(self, reach: int) -> float:
        """The largest number on the way to a code that kernels hold in 32 bits, of sums of up to `reach`."""
        if self.kind == DOUBLE:
            return reach * 2.0 ** max(int(self.exponent.max()) + MANTISSA_BITS, 0)
        return reach * float(torch.ldexp(self.mantissa.to(torch.float64), self.exponent).max())

    def codes(self, sums: Tensor, grid: Grid, clamp_min: int, clamp_max: int) -> Tensor:
        """Codes (O, M) of `grid.dtype`. sums: integers (O, M)."""
        mantissa, exponent = (part.to(sums.device)[:, None] for part in (self.mantissa, self.exponent))
        steps = multiplied(self.kind, sums, mantissa, exponent)
        return steps.add_(grid.zero_point).clamp_(clamp_min, clamp_max).to(grid.dtype)


def factor_parts(kind: str, input_scale: Tensor, weight_scale: Tensor, output_scale: Tensor) -> tuple[Tensor, Tensor]:
    """(mantissa, exponent) of input_scale * weight_scale / output_scale, int64; the scales broadcast.

    Kernels of sums multiply scales in float64, those of products in float32.
    """
    dtype = torch.float32 if kind == DOUBLE else torch.float64
    factor = input_scale.to(dtype) * weight_scale.to(dtype) / output_scale.to(dtype)
    fraction, shift = torch.frexp(factor.double())
    mantissa = torch.floor(fraction * 2**MANTISSA_BITS + 0.5).to(torch.int64)
    shift = shift.to(torch.int64) + (mantissa == 2**MANTISSA_BITS)
    mantissa = mantissa.clamp(max=2**MANTISSA_BITS - 1).where(mantissa < 2**MANTISSA_BITS, 2 ** (MANTISSA_BITS - 1))
    if kind == REDUCED:
        lost = MANTISSA_BITS - REDUCED_BITS
        mantissa = (mantissa + (1 << (lost - 1)) >> lost).clamp(max=2**REDUCED_BITS - 1)
    return mantissa, shift - _BITS[kind]


def multiplied(kind: str, sums: Tensor, mantissa: Tensor, exponent: Tensor) -> Tensor:
    """`sums * mantissa * 2**exponent` rounded as kernels of that kind do, int64. The factors broadcast.

    sums: whole numbers, below 2^38 where kind is `REDUCED`, else below 2^31.
    """
    sums, mantissa, shift = sums.to(torch.int64), mantissa.to(torch.int64), -exponent.to(torch.int64)
    one = torch.ones_like(shift)
    if kind != DOUBLE:
        return sums * mantissa + (one << (shift - 1)) >> shift
    right = (shift - MANTISSA_BITS).clamp(min=0)
    raised = sums << (MANTISSA_BITS - shift).clamp(min=0)
    return _half_away(raised * mantissa + (1 << (MANTISSA_BITS - 1)) >> MANTISSA_BITS, right)


def _half_away(numbers: Tensor, shift: Tensor) -> Tensor:
    """numbers / 2**shift, ties away from zero."""
    half = (torch.ones_like(shift) << shift) >> 1
    return numbers + half - ((numbers < 0) & (shift > 0)).to(torch.int64) >> shift


@dataclass(frozen=True)
class FixedSum:
    """Factors of an addition: of both operands, raised by `SUM_SHIFT` bits, and of their sum; each `m * 2**(shift-31)`.

    first_mantissa, second_mantissa, sum_mantissa: of 31 bits. first_shift, second_shift, sum_shift: of at most 0.
    """

    first_mantissa: int
    first_shift: int
    second_mantissa: int
    second_shift: int
    sum_mantissa: int
    sum_shift: int

    def __post_init__(self):
        for mantissa, shift in self.parts:
            if not 2 ** (MANTISSA_BITS - 1) <= mantissa < 2**MANTISSA_BITS or not MIN_SHIFT <= shift <= 0:
                raise ProgramError(
                    f"an addition of 16-bit codes has a factor {mantissa} * 2^{shift - MANTISSA_BITS}; its mantissa "
                    f"has {MANTISSA_BITS} bits, and its power of two is {MIN_SHIFT}..0 above them."
                )

    @property
    def parts(self) -> tuple[tuple[int, int], ...]:
        """(mantissa, shift) of both operands and of the sum."""
        return (
            (self.first_mantissa, self.first_shift),
            (self.second_mantissa, self.second_shift),
            (self.sum_mantissa, self.sum_shift),
        )

    @classmethod
    def from_grids(cls, first: Grid, second: Grid, output: Grid) -> "FixedSum":
        """The factors that the kernel makes of the scales. Raises `ProgramError` for scales that it does not take."""
        twice = 2 * max(first.scale, second.scale)
        factors = first.scale / twice, second.scale / twice, twice / (2**SUM_SHIFT * output.scale)
        if factors[2] >= 1 or min(factors) < 2.0**MIN_SHIFT:
            raise ProgramError(
                f"an addition of scales {first.scale:.3g} and {second.scale:.3g} has an output of scale "
                f"{output.scale:.3g}; kernels of 16-bit codes take an output of more than the larger scale over 2^14, "
                "and operands less than 2^30 apart: look for a range that collapsed while it was observed."
            )
        return cls(*(number for factor in factors for number in _parts(factor)))

    @property
    def sum_factor(self) -> float:
        """What the weighted sums are multiplied by."""
        return math.ldexp(self.sum_mantissa, self.sum_shift - MANTISSA_BITS)

    def sums(self, first: Tensor, second: Tensor) -> Tensor:
        """Weighted sums that are not rescaled yet, int64. first, second: codes less their zero points, integers."""
        raised = (codes.to(torch.int64) << SUM_SHIFT for codes in (first, second))
        return sum(_times(SINGLE, codes, part) for codes, part in zip(raised, self.parts, strict=False))

    def steps(self, sums: Tensor) -> Tensor:
        """Codes less the zero point, of `sums`."""
        return _times(DOUBLE, sums, self.parts[2])


def requantize_fixed_sum(
    first: Tensor, second: Tensor, factors: FixedSum, grid: Grid, clamp_min: int, clamp_max: int
) -> Tensor:
    """Codes of `grid.dtype` of a sum. first, second: codes less their zero points, integers (...)."""
    steps = factors.steps(factors.sums(first, second))
    return steps.add_(grid.zero_point).clamp_(clamp_min, clamp_max).to(grid.dtype)


def _parts(factor: float) -> tuple[int, int]:
    fraction, shift = math.frexp(factor)
    mantissa = math.floor(fraction * 2**MANTISSA_BITS + 0.5)
    return (mantissa, shift) if mantissa < 2**MANTISSA_BITS else (mantissa // 2, shift + 1)


def _times(kind: str, numbers: Tensor, part: tuple[int, int]) -> Tensor:
    mantissa, exponent = (torch.tensor(number, device=numbers.device) for number in (part[0], part[1] - MANTISSA_BITS))
    return multiplied(kind, numbers, mantissa, exponent)
