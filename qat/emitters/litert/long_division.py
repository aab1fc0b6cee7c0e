"""Division of int64 numbers, which LiteRT's kernels do not have, by the remainders that they have.

For a quotient `q` and a remainder `r` of `a = q * b + r`, with `T` of at least `q + 2`,

    (a * T) mod (b * T - 1) = r * T + q

since `b * T` leaves 1: two remainders, of `b * T - 1` and of `T`, are a division. A quotient that is too large for one
step of it is cut into digits, as on paper: what one digit leaves, with the next digit of the numerator behind it, is
divided for the next. The functions here say into how many; `forms/divided.py` writes the operators.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from qat.integer.kernels.normalize import ROOT_ESTIMATES, ROOT_STEPS

#: Numbers lie below.
_END = 2**63


@dataclass(frozen=True)
class Digits:
    """How a quotient is computed: in `count` digits of `bits` bits each, as remainders of multiples of 2^raised."""

    count: int
    bits: int
    raised: int


def digits_of(quotient: int, divisor: int, numerator: int, zeros: int = 0) -> Digits | None:
    """The fewest digits with which nothing leaves int64; None where there are none.

    quotient, divisor, numerator: the largest that there are. zeros: how many zeros the numerator ends with, in binary;
    of one without, two digits are the most.
    """
    raised = (quotient + 1).bit_length()
    if max(numerator, divisor) << raised < _END:
        return Digits(1, 0, raised)
    bits = (_END.bit_length() - 2 - divisor.bit_length()) // 2
    for count in range(2, 6):
        low = bits * (count - 1)
        fits = quotient >> low <= 2 ** (bits + 1) - 2 and numerator << bits + 1 >> low < _END
        if bits > 0 and fits and (count == 2 and not zeros or low <= zeros):
            return Digits(count, bits, bits + 1)
    return None


@dataclass(frozen=True)
class RootStep:
    """One Newton step `root + floor((number - root^2) / (2 * root))`.

    lift: makes the quotient positive. digits: of its division.
    """

    lift: int
    digits: Digits


@dataclass(frozen=True)
class RootSteps:
    """The steps of `integer_root` of numbers in 1..largest; at its end a root is at most `highest`."""

    steps: tuple[RootStep, ...]
    highest: int


def root_steps(largest: int) -> RootSteps | None:
    """How the root of numbers in 1..largest is computed; None where that leaves int64.

    The estimate is the same for all numbers of k pairs of binary digits, and bounds hold for each k. From the first
    step on a root is not below the true one, and above it by at most the square of what it was, over twice the root.
    """
    if largest >= 2**62:
        return None
    ranges = [
        (4 ** (k - 1), min(4**k - 1, largest), ROOT_ESTIMATES[k]) for k in range(1, (largest.bit_length() + 1) // 2 + 1)
    ]
    lifts = [max((root**2 - low) // (2 * root) + 1, 1) for low, _, root in ranges]
    above = [(high - root**2) // (2 * root) for _, high, root in ranges]
    steps = [_step(max(lifts), max(above), max(ranges[-1][2], 1))]
    errors = [max(root - math.isqrt(low), math.isqrt(high) + 1 - root) for low, high, root in ranges]
    leads = [error**2 // (2 * root) + 1 for error, (_, _, root) in zip(errors, ranges, strict=True)]
    for _ in range(ROOT_STEPS - 1):
        steps.append(_step(max(leads), 1, _highest(ranges, leads)))
        leads = [lead**2 // (2 * math.isqrt(low)) + 1 for lead, (low, _, _) in zip(leads, ranges, strict=True)]
    if any(step is None for step in steps):
        return None
    return RootSteps(tuple(steps), _highest(ranges, leads))


def _highest(ranges: Sequence[tuple[int, int, int]], leads: Sequence[int]) -> int:
    return max(math.isqrt(high) + lead for (_, high, _), lead in zip(ranges, leads, strict=True))


def _step(lift: int, above: int, root: int) -> RootStep | None:
    """lift, above: how far a step goes down and up at most. root: the largest that it starts from."""
    quotient = lift + max(above, 0)
    digits = digits_of(quotient, 2 * root, (quotient + 1) * 2 * root)
    return None if digits is None else RootStep(lift, digits)
