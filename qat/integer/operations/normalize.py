"""Normalization over dimensions: layer, RMS, group and instance norm, and division by an L2 norm."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from qat.errors import ProgramError
from qat.integer.geometry import Shape, reduced_shape
from qat.integer.lengths import Length
from qat.integer.operations.base import ComputingOperation
from qat.integer.values import Grid

#: Bits of a normalized value in fixed point: with its offset it fits int32, of wide codes int64 with as much room.
_NARROW_BITS, _WIDE_BITS = 29, 44
#: Normalized units per code from which on a gain is taken for 0.
_CONSTANT = 2.0**60
#: Most elements that are normalized in int32. One of n elements can be the root of n times as large as the others,
#: and takes that room from them: beyond, more than 2 codes in 10,000 would come out differently.
MOST_NARROW = 2**14
#: What is under the root stays below 2^62, so that the sum of a Newton step stays inside int64.
_SQUARE_BITS = 62
#: What is divided by the root stays below 2^62.
_QUOTIENT_BITS = 61


@dataclass(frozen=True, eq=False)
class NormalizeFactors:
    """What a normalization computes with, in integers; `Normalize` has the formula.

    count: what the sum of squares is multiplied with: the number of elements, or 1 for an L2 norm.
    root_shift: the root is of `square << 2 * root_shift`. quotient_shift: of what is divided by it.
    epsilon: added to what is under the root (of an L2 norm: its least value).
    divisors, offsets, bases: int64 of one shape, which broadcasts to the value without its batch: a code is
    `(normalized + offset) / divisor + base`. A divisor is 2^(quotient_shift - root_shift) over codes per unit of the
    normalized value, negative for a negative gain. The offset makes the quotient positive, so that the rounding of a
    negative one is no question, and the base takes that back.
    """

    count: int
    root_shift: int
    quotient_shift: int
    epsilon: int
    divisors: Tensor
    offsets: Tensor
    bases: Tensor

    def __post_init__(self):
        tensors = self.divisors, self.offsets, self.bases
        if any(tensor.dtype != torch.int64 or tensor.shape != self.divisors.shape for tensor in tensors):
            raise ProgramError(
                f"divisors, offsets and bases are {', '.join(f'{t.dtype} {tuple(t.shape)}' for t in tensors)}; they "
                "are int64 of one shape."
            )
        if not self.divisors.numel() or bool((self.divisors == 0).any()):
            raise ProgramError("divisors of a normalization must be there and not 0.")

    @classmethod
    def from_grids(
        cls,
        source: Grid,
        target: Grid,
        count: int,
        *,
        centered: bool,
        epsilon: float,
        l2: bool = False,
        gain: Tensor | None = None,
        shift: Tensor | None = None,
    ) -> "NormalizeFactors":
        """The most accurate factors with which nothing overflows.

        count: how many elements are normalized together. epsilon: real, added to the variance or the mean square, or
        the least L2 norm. gain, shift: real, what the normalized value is multiplied with and what is added then;
        they broadcast to the value without its batch. None: 1 and 0.
        """
        highest = normalized_bits(source, target, count)
        spread = source.quant_max - source.quant_min
        precision = math.floor(math.log2((2**highest - spread - 3) / largest_normalized(count, l2)))
        squared = 1 if l2 else count
        root_shift, stored = _root_shift(squared * count * spread**2, squared**2 * epsilon_steps(source, epsilon, l2))
        root_shift = min(root_shift, _QUOTIENT_BITS - precision - squared.bit_length())
        if root_shift < 0 or precision < 1:
            raise ProgramError(
                f"a normalization over {count} elements of {source.bits} bits leaves int64; normalize fewer elements "
                "together, or give them fewer bits."
            )
        gain = torch.ones(()) if gain is None else gain
        shift = torch.zeros(()) if shift is None else shift
        gain, shift = torch.broadcast_tensors(gain.detach().cpu().double(), shift.detach().cpu().double())
        divisors, offsets, bases = _channels(gain, shift, target, precision, highest)
        return cls(
            count=squared,
            root_shift=root_shift,
            quotient_shift=root_shift + precision,
            epsilon=round(stored * 4**root_shift),
            divisors=divisors,
            offsets=offsets,
            bases=bases,
        )

    def reals(self, source: Grid, target: Grid, l2: bool) -> tuple[float, Tensor, Tensor]:
        """Epsilon, gain and shift as real numbers, float64: what the integers stand for."""
        precision = self.quotient_shift - self.root_shift
        divisors = self.divisors.to(torch.float64)
        steps = self.epsilon / 4**self.root_shift
        epsilon = math.sqrt(steps) * source.scale if l2 else steps / self.count**2 * source.scale**2
        # a quotient is rounded down, which half a step more makes a rounding to the nearest
        return (
            epsilon,
            2.0**precision / divisors * target.scale,
            (self.offsets / divisors + self.bases - 0.5) * target.scale,
        )


def is_narrow(source: Grid, target: Grid, count: int) -> bool:
    """Whether values are normalized in int32."""
    return max(source.bits, target.bits) <= 8 and count <= MOST_NARROW


def normalized_bits(source: Grid, target: Grid, count: int) -> int:
    """Bits of normalized values in fixed point."""
    return _NARROW_BITS if is_narrow(source, target, count) else _WIDE_BITS


def largest_normalized(count: int, l2: bool) -> float:
    """What a normalized value of `count` elements is at most, with room for a root that is one too small.

    A root of a row that is not constant is 2^7 or more, so that one less makes it smaller by less than a 64th.
    """
    return (1 if l2 else math.sqrt(count)) * (1 + 1 / 64)


def epsilon_steps(source: Grid, epsilon: float, l2: bool) -> float:
    """Epsilon in squared steps of the input."""
    return (epsilon / source.scale) ** 2 if l2 else epsilon / source.scale**2


def _root_shift(square: int, epsilon: float) -> tuple[int, float]:
    """How far what is under the root can be shifted, by twos, and its epsilon. square: its largest value without."""
    epsilon = min(epsilon, 2.0 ** (_SQUARE_BITS - 1))
    return math.floor((_SQUARE_BITS - math.log2(square + epsilon + 1)) / 2), epsilon


def _channels(gain: Tensor, shift: Tensor, target: Grid, precision: int, highest: int) -> tuple[Tensor, Tensor, Tensor]:
    """Divisors, offsets and bases, of gains and shifts: float64 of one shape. precision: bits behind the point."""
    if not bool((gain.isfinite() & shift.isfinite()).all()):
        raise ProgramError(
            "a normalization has a gain or a shift that is NaN or infinite; look at its weight and bias."
        )
    limit = 2**highest
    added = (shift / target.scale).clamp(-limit, limit)
    whole = (added + 0.5).floor()
    # A code is whole + floor((normalized + below) / steps), steps being normalized units per code: it changes where the
    # normalized value falls below -below or reaches above.
    steps = (2.0**precision * target.scale / gain.abs()).clamp(1, _CONSTANT)
    below = (added - whole + 0.5) * steps
    above = steps - below
    # Divisors end at twice the largest normalized value. Beyond them only one of the changes can lie within reach, and
    # keeps its place.
    sizes = torch.round(steps.clamp(max=2 * limit)).to(torch.int64)
    reached = torch.where(below <= limit, below, torch.where(above <= limit, sizes - above, sizes / 2))
    reached = torch.where(steps <= 2 * limit, below, torch.where(steps < _CONSTANT, reached, sizes / 2))
    fraction = torch.round(reached).to(torch.int64)
    lifts = ((limit - fraction).clamp(min=0) + sizes - 1) // sizes
    signs = torch.where(gain < 0, -1, 1)
    return signs * sizes, signs * (fraction + lifts * sizes), whole.to(torch.int64) - lifts


@dataclass(frozen=True, eq=False, kw_only=True)
class Normalize(ComputingOperation):
    """(x - mean) / sqrt(mean square + epsilon) * gain + shift over `dims`; an RMS norm is not centered.

    With l2: x / max(sqrt(sum of squares), epsilon). centered and l2 exclude one another.
    factors: `NormalizeFactors.from_grids(...)`.

    In integers, of the codes c (counted from 0) of a row of n elements:

        v = c - floor(sum(c) / n), r = sum(c) mod n        where centered, else v = c - zero_point, r = 0
        square = (count * sum(v^2) - r^2) << 2 * root_shift
        root = integer_root(square + epsilon), or of the larger of both with l2
        normalized = v * ((count << quotient_shift) / root) - (r << quotient_shift) / root
        code = (normalized + offset) / divisor + base + zero_point

    where every division rounds down. Nothing is rounded before the last line but the two factors of a row. Of a million
    8-bit codes, 21 to 42 are not the float64 function rounded to the grid but one off where 768 elements are normalized
    together, 5 where 16 are, 190 where 16,384 are (`python tests/benchmarks/nonlinear_rounding.py`).
    """

    dims: tuple[int, ...]
    centered: bool
    l2: bool
    factors: NormalizeFactors
    arity: ClassVar[int | None] = 1

    def row_size(self, shape: Shape) -> int:
        """How many elements of an input of `shape` are normalized together."""
        return math.prod([shape[dim - 1] for dim in self.dims])

    def check(self):
        if self.centered and self.l2:
            raise self.error("is both centered and by an L2 norm, which knows no mean; choose one")

    def output_shape(self, *shapes):
        shape = shapes[0]
        reduced_shape(self.error, shape, self.dims, True)
        gains = tuple(self.factors.divisors.shape)
        if len(gains) > len(shape) or any(
            size not in (1, whole) for size, whole in zip(gains, shape[len(shape) - len(gains) :], strict=True)
        ):
            raise self.error(f"has gains of {gains} for a value of {shape}; they must broadcast to it")
        return shape

    def check_between(self, sources, output):
        source, target, factors = sources[0].grid, output.grid, self.factors
        if any(isinstance(sources[0].shape[dim - 1], Length) for dim in self.dims):
            raise self.error("normalizes over the length of an input, but its factors are those of one length")
        count = self.row_size(sources[0].shape)
        expected = 1 if self.l2 else count
        if factors.count != expected:
            raise self.error(f"has factors of count {factors.count}, but its dimensions ask for {expected}")
        highest, spread = normalized_bits(source, target, count), source.quant_max - source.quant_min
        precision = factors.quotient_shift - factors.root_shift
        if not 0 <= factors.root_shift <= 31 or not 1 <= precision <= highest:
            raise self.error(
                f"has a root_shift of {factors.root_shift} and a quotient_shift of {factors.quotient_shift}"
            )
        square = ((factors.count * count * spread**2) << 2 * factors.root_shift) + factors.epsilon
        quotient = factors.count << factors.quotient_shift
        # Rounding a factor of v moves the result by up to v, and each floor by 1.
        largest = 2**precision * largest_normalized(count, self.l2) + spread + 2
        sizes = factors.divisors.abs()
        offsets = factors.offsets * factors.divisors.sign()
        limit = 2**highest
        if (
            factors.epsilon < 0
            or square >= 2 ** (_SQUARE_BITS + 1)
            or quotient >= 2 ** (_QUOTIENT_BITS + 1)
            or largest > limit
            or int(sizes.max()) > 2 * limit
            or int(offsets.min()) < largest
            or int(offsets.max()) + largest >= 4 * limit
            or int(factors.bases.abs().max()) > 2 * limit
        ):
            raise self.error("has factors with which its sums can overflow, or quotients be negative")

    def reach(self, sources, output):
        return 0  # `check_between` has the bounds of every sum
