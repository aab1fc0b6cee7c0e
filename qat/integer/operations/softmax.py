"""Softmax and its logarithm, by a table of exponentials and one division."""

import functools
import math
from dataclasses import dataclass
from decimal import Decimal
from typing import ClassVar

import torch
from torch import Tensor

from qat.errors import ProgramError
from qat.integer.geometry import broadcast_shape
from qat.integer.operations.base import ComputingOperation
from qat.integer.operations.choices import MASK_GRID
from qat.integer.values import Grid, check_dtype

#: Fractional bits that exponentials have where their sums stay inside int32; below, sums are int64. An exponential is
#: rounded by half its last bit, and a sum of n of them, all alike, by n times that: with 21 bits and 1,023 of them by
#: a 16th of a step of 8-bit shares at most.
_FEWEST_NARROW_BITS = 21
#: Most elements of a sum: with the fewest bits inside int32, of long sequences, and of any value.
_CAPACITIES = (2**10 - 1, 2**16 - 1, 2**31 - 1)
#: A sum of exponentials, times a 24-bit mantissa, stays below 2^61.
_PRODUCT_BITS = 61
#: Bits of a numerator, `exponential << numerator_shift`: of 8-bit results it fits int32 with half of the divisor, and
#: of 16-bit ones it has as many bits behind the last code.
_NUMERATOR_BITS, _WIDE_NUMERATOR_BITS = 29, 45
#: Largest shift of a sum; what it would lose beyond is below any code.
_MAX_SHIFT = 61


@dataclass(frozen=True, eq=False)
class SoftmaxFactors:
    """What a softmax computes with: `code - zero_point = round((e << numerator_shift) / divisor)`.

    exponentials: int32 (n,), e = exp(-distance * input scale) with fraction bits, for a code `distance` below the
    largest; n codes of the input grid. The first is 2^(fraction bits).
    numerator_shift: brings e to as many bits as the divisor leaves room for.
    sum_shift, divisor_factor, divisor_shift: divisor = round((sum of e >> sum_shift) * divisor_factor /
    2^divisor_shift), which is sum of e * 2^numerator_shift * output scale; the factor is the 24-bit mantissa of the
    output scale, and what a long sum loses of its last bits is less than the mantissa does.
    """

    exponentials: Tensor
    numerator_shift: int
    sum_shift: int
    divisor_factor: int
    divisor_shift: int

    def __post_init__(self):
        check_exponentials(self.exponentials)

    @classmethod
    def from_grids(cls, source: Grid, target: Grid, count: int) -> "SoftmaxFactors":
        """Factors with which nothing overflows. count: how many elements a sum is over, rounded up to a capacity."""
        count = capacities(count)[0]
        bits, numerator = fraction_bits(count, target), numerator_bits(target)
        shift = numerator - bits
        mantissa, exponent = math.frexp(target.scale)
        sum_shift = max(bits + count.bit_length() + 24 - _PRODUCT_BITS, 0)
        divisor_shift = 24 - exponent - shift - sum_shift
        if divisor_shift < 0:
            raise ProgramError(
                f"a softmax has an output of scale {target.scale:.3g}; its results are at most 1, so give it a scale "
                "of at most 1."
            )
        factor = round(mantissa * 2**24)
        return cls(exponentials_of(source, bits), shift, sum_shift, factor, min(divisor_shift, _MAX_SHIFT))

    @functools.cached_property
    def one(self) -> int:
        """The exponential of the largest code."""
        return int(self.exponentials[0])

    def divisor(self, sums: Tensor | int) -> Tensor | int:
        """The divisor of rows with these sums of exponentials, not yet limited to 1..divisor_limit."""
        return ((sums >> self.sum_shift) * self.divisor_factor + self.half) >> self.divisor_shift

    @property
    def half(self) -> int:
        """Half of what the last shift of a divisor drops."""
        return (1 << self.divisor_shift) >> 1

    def matches(self, other: "SoftmaxFactors") -> bool:
        """Whether these are the same factors, up to the last bit of exponentials."""
        numbers = [
            (factors.numerator_shift, factors.sum_shift, factors.divisor_factor, factors.divisor_shift)
            for factors in (self, other)
        ]
        return numbers[0] == numbers[1] and exponentials_match(self.exponentials, other.exponentials)

    @property
    def largest_step(self) -> int:
        """The largest `code - zero_point`, that of an element which takes part alone."""
        divisor = max(self.divisor(self.one), 1)
        return ((self.one << self.numerator_shift) + (divisor >> 1)) // divisor

    @property
    def divisor_limit(self) -> int:
        """A divisor from which on every result is 0; larger ones are cut to it, so that int32 holds them."""
        return (self.one << (self.numerator_shift + 2)) - 1


def exponentials_of(source: Grid, bits: int) -> Tensor:
    """round(exp(-distance * scale) * 2^bits) for distance 0..n-1 of the n codes of `source`; int32 (n,)."""
    distances = torch.arange(source.quant_max - source.quant_min + 1, dtype=torch.float64)
    return torch.round(torch.exp(-distances * source.scale) * 2.0**bits).to(torch.int32)


def check_exponentials(exponentials: Tensor) -> None:
    """Refuse a table of another dtype or shape."""
    check_dtype(exponentials, torch.int32, "exponentials")
    if exponentials.dim() != 1 or not exponentials.numel():
        raise ProgramError(f"exponentials have shape {tuple(exponentials.shape)}; they are (n,).")


def exponentials_match(first: Tensor, second: Tensor) -> bool:
    """Whether two tables are one, but for last bits, which libraries of two machines may round apart."""
    if first.shape != second.shape or int(first[0]) != int(second[0]) or int(first.min()) < 0:
        return False
    return int((first.to(torch.int64) - second.to(torch.int64)).abs().max()) <= 1


def capacities(count: int) -> list[int]:
    """Counts of elements that factors for `count` of them may be made for, the usual one first.

    They are few, so that shorter sequences are computed with the factors of the longest.
    """
    return [capacity for capacity in _CAPACITIES if capacity >= count]


def fraction_bits(count: int, target: Grid) -> int:
    """Fractional bits of exponentials of which `count` are added."""
    narrow = 31 - count.bit_length()
    if target.bits <= 8 and narrow >= _FEWEST_NARROW_BITS:
        return min(narrow, _NUMERATOR_BITS)
    return _NUMERATOR_BITS


def numerator_bits(target: Grid) -> int:
    """Bits of the numerator of a code of `target`."""
    return _NUMERATOR_BITS if target.bits <= 8 else _WIDE_NUMERATOR_BITS


@dataclass(frozen=True, eq=False, kw_only=True)
class Softmax(ComputingOperation):
    """exp(x) / sum of exp(x) over `dim`, of the elements that take part.

    inputs: (scores,), or (scores, mask); the mask is on `MASK_GRID`, a value or a constant, and broadcasts to the
    scores: 1 takes part, 0 gives the code of 0. So do all elements of a row in which none takes part.
    factors: `SoftmaxFactors.from_grids(input grid, output grid, size of dim)`.

    With the largest code of a row at distance 0, the arithmetic is that of `SoftmaxFactors`, a tie of the division
    rounding up. Of a million 8-bit codes 0 to 47 are not the float64 softmax rounded to the grid but one off
    (`python tests/benchmarks/nonlinear_rounding.py`).
    """

    dim: int
    factors: SoftmaxFactors
    arity: ClassVar[int | None] = None
    takes_constants: ClassVar[bool] = True

    def check(self):
        if len(self.inputs) > 2:
            raise self.error(f"takes {len(self.inputs)} inputs; they are scores and at most one mask")

    def output_shape(self, *shapes):
        scores = shapes[0]
        if not 1 <= self.dim <= len(scores):
            raise self.error(f"runs over dimension {self.dim} of scores of {scores}; the batch is dimension 0")
        if len(shapes) == 2 and broadcast_shape(self.error, *shapes) != scores:
            raise self.error(f"has a mask of {shapes[1]} for scores of {scores}; it must broadcast to them")
        return scores

    def check_between(self, sources, output):
        if len(sources) == 2 and sources[1].grid != MASK_GRID:
            raise self.error(f"has a mask {sources[1].name!r} on {sources[1].grid}; a mask is on {MASK_GRID}")
        scores = sources[0]
        if not any(
            self.factors.matches(SoftmaxFactors.from_grids(scores.grid, output.grid, capacity))
            for capacity in capacities(scores.shape[self.dim - 1])
        ):
            raise self.error("has factors that are not SoftmaxFactors.from_grids of its grids and its dimension")

    def reach(self, sources, output):
        return 0  # `SoftmaxFactors` chooses its bits so that nothing overflows


#: Fractional bits of a logarithm, and of the table it starts from: what the table leaves is below 2^-10, so that two
#: terms of the series give 31 bits.
LOG_BITS, LOG_TABLE_BITS = 30, 10
#: Bits of a result before its last shift, of 8-bit and of wider codes.
_LOG_SUM_BITS, _WIDE_LOG_SUM_BITS = 30, 44
#: A logarithm is below 2^35 in its fixed point: the natural logarithm of 2^31 is 21.5.
_LOG_FACTOR_BITS = 27


#: Bits of an int64 sum of which a logarithm is taken.
LOG_SUM_LIMIT = 42


@dataclass(frozen=True, eq=False)
class LogSoftmaxFactors:
    """What a log-softmax computes with:
    `zero_point - code = round((distance * distance_factor + round(log * log_factor / 2^log_shift)) / 2^shift)`.

    exponentials: as in `SoftmaxFactors`. distance_factor: 2^shift * input scale / output scale.
    log_factor, log_shift: 2^shift / output scale over 2^LOG_BITS, for the logarithm of the sum of exponentials.
    """

    exponentials: Tensor
    distance_factor: int
    log_factor: int
    log_shift: int
    shift: int

    def __post_init__(self):
        check_exponentials(self.exponentials)

    @classmethod
    def from_grids(cls, source: Grid, target: Grid, count: int) -> "LogSoftmaxFactors":
        """Factors with which nothing overflows. count: how many elements a sum is over, rounded up to a capacity."""
        count = capacities(count)[0]
        ratio = source.scale / target.scale
        largest = (source.quant_max - source.quant_min) * ratio + math.log(max(count, 2)) / target.scale + 1
        shift = (_LOG_SUM_BITS if target.bits <= 8 else _WIDE_LOG_SUM_BITS) - math.ceil(math.log2(largest))
        if shift < 0:
            raise ProgramError(
                f"a log-softmax of scale {source.scale:.3g} has an output of scale {target.scale:.3g}, whose range has "
                "collapsed; give it a range that its results lie in."
            )
        log_shift = min(_LOG_FACTOR_BITS - 1 + LOG_BITS - math.ceil(math.log2(2.0**shift / target.scale)), _MAX_SHIFT)
        return cls(
            exponentials=exponentials_of(source, log_fraction_bits(count)),
            distance_factor=round(ratio * 2**shift),
            log_factor=round(2.0 ** (shift - LOG_BITS + log_shift) / target.scale),
            log_shift=log_shift,
            shift=shift,
        )

    def matches(self, other: "LogSoftmaxFactors") -> bool:
        """Whether these are the same factors, up to the last bit of exponentials."""
        numbers = [
            (factors.distance_factor, factors.log_factor, factors.log_shift, factors.shift) for factors in (self, other)
        ]
        return numbers[0] == numbers[1] and exponentials_match(self.exponentials, other.exponentials)

    @functools.cached_property
    def one(self) -> int:
        """The exponential of the largest code."""
        return int(self.exponentials[0])

    @functools.cached_property
    def logs(self) -> Tensor:
        """`log_table()`, as a tensor of these factors."""
        return log_table()


@functools.cache
def log_table() -> Tensor:
    """Natural logarithms of 1 to 2 in 2^LOG_TABLE_BITS steps, of LOG_BITS fractional bits; int64.

    Decimal numbers give the same entries on every machine, whatever its floating-point library.
    """
    steps = (1 + Decimal(place) / 2**LOG_TABLE_BITS for place in range(2**LOG_TABLE_BITS))
    return torch.tensor([round(step.ln() * 2**LOG_BITS) for step in steps])


def log_fraction_bits(count: int) -> int:
    """Fractional bits of exponentials of which `count` are added to take the logarithm of."""
    narrow = 31 - count.bit_length()
    bits = narrow if narrow >= _FEWEST_NARROW_BITS else LOG_SUM_LIMIT - count.bit_length()
    return max(min(bits, _NUMERATOR_BITS), LOG_TABLE_BITS)


@dataclass(frozen=True, eq=False, kw_only=True)
class LogSoftmax(ComputingOperation):
    """x - log(sum of exp(x)) over `dim`. factors: `LogSoftmaxFactors.from_grids(input grid, output grid, size of dim)`.

    The logarithm is by integers: the number of binary digits, a table of 10 more, and two terms of a series. Of a
    million 8-bit codes 0 to 52 are not the float64 function rounded to the grid but one off
    (`python tests/benchmarks/nonlinear_rounding.py`).
    """

    dim: int
    factors: LogSoftmaxFactors

    def output_shape(self, *shapes):
        if not 1 <= self.dim <= len(shapes[0]):
            raise self.error(f"runs over dimension {self.dim} of scores of {shapes[0]}; the batch is dimension 0")
        return shapes[0]

    def check_between(self, sources, output):
        scores = sources[0]
        if not any(
            self.factors.matches(LogSoftmaxFactors.from_grids(scores.grid, output.grid, capacity))
            for capacity in capacities(scores.shape[self.dim - 1])
        ):
            raise self.error("has factors that are not LogSoftmaxFactors.from_grids of its grids and its dimension")

    def reach(self, sources, output):
        return 0  # `LogSoftmaxFactors` chooses its bits so that nothing overflows
