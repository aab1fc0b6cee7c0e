"""Rescaling of sums with one multiplication, one addition and one shift, proven equal to the program's arithmetic.

`qat.integer.fixed_point` rounds twice, as float32 does. Its codes ascend with the sum, so they are known by the
smallest sum of each code; and `(sum * multiplier + half) >> shift` gives the same codes if it changes at the same
sums. That is two bounds on the multiplier for each code. Any multiplier between all of them is exact, and with 31 bits
instead of 24 there nearly always is one.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from qat.integer.fixed_point import LONGEST_SHIFT, Multiplier
from qat.integer.values import Grid

#: Exact codes of sums (..., O): `requantize`, `requantize_product` or `requantize_once`.
Exact = Callable[[Tensor, Multiplier, Grid, int, int], Tensor]

#: Bits of a multiplier, which leave int64 whole with a sum of 31; and those that it has more than a mantissa.
_BITS, _FINER = 31, 7
_LONGEST_SHIFT = 62
#: What results stay below, with room for a zero point, so that int32 holds them.
_LIMIT = 2**31 - 2**17


@dataclass(frozen=True)
class Factors:
    """`code = clamp(((sum * multiplier + (1 << shift >> 1)) >> shift) + zero_point)`, one of each per channel."""

    multipliers: tuple[int, ...]
    shifts: tuple[int, ...]


def single_rounding(
    multiplier: Multiplier, grid: Grid, clamp: tuple[int, int], reach: int, exact: Exact
) -> list[tuple[int, int] | None]:
    """(multiplier, shift) of every channel, with which the codes are those of `exact` for every sum of at most `reach`.

    None for channels that have none. clamp: the codes that results are limited to.
    """
    reach = max(reach, 1)
    steps = _steps(multiplier, grid, clamp, reach, exact)
    parts = zip(multiplier.mantissa.tolist(), multiplier.exponent.tolist(), steps, strict=True)
    first = clamp[0] + 1 - grid.zero_point
    return [_of_channel(mantissa, -exponent, own, first, reach) for mantissa, exponent, own in parts]


def _steps(multiplier: Multiplier, grid: Grid, clamp: tuple[int, int], reach: int, exact: Exact) -> list[list[int]]:
    """For each channel the smallest sum of each code above the lowest, reach + 1 where no sum has it."""
    channels = len(multiplier.mantissa)
    wanted = torch.arange(clamp[0] + 1, clamp[1] + 1)[:, None].expand(-1, channels)
    below = torch.full(wanted.shape, -reach - 1)
    above = torch.full(wanted.shape, reach + 1)
    for _ in range((2 * reach + 2).bit_length()):
        middle = (below + above) >> 1
        tried = exact(middle.clamp(-reach, reach), multiplier, grid, *clamp).to(torch.int64)
        reached = (tried >= wanted) & (middle >= -reach) | (middle > reach)
        above = torch.where(reached, middle, above)
        below = torch.where(reached, below, middle)
    return above.T.tolist()


def _of_channel(mantissa: int, shift: int, steps: list[int], first: int, reach: int) -> tuple[int, int] | None:
    """(multiplier, shift) of one channel. first: the code of the first step, counted from the zero point."""
    finer = min(shift + _FINER, _LONGEST_SHIFT)
    if finer < 1:
        return None
    half, low, high = (1 << finer) >> 1, 0, 2**_BITS - 1
    for place, step in enumerate(steps):
        # sum * multiplier must reach this from `step` on, and not before
        bound = ((first + place) << finer) - half
        if step <= reach:
            if step > 0:
                low = max(low, -(-bound // step))
            elif step < 0:
                high = min(high, bound // step)
            elif bound > 0:
                return None
        before = step - 1
        if before >= -reach:
            if before > 0:
                high = min(high, (bound - 1) // before)
            elif before < 0:
                low = max(low, -(-(bound - 1) // before))
            elif bound <= 0:
                return None
    exact = mantissa << (finer - shift) if finer >= shift else mantissa >> (shift - finer)
    chosen = min(max(exact, low), high)
    if low > high or ((reach * chosen) >> finer) >= _LIMIT:
        return None
    return chosen, finer


def rounded_once(multiplier: Multiplier, reach: int) -> Factors | None:
    """Factors of `fixed_point.round_once`, which rounds as they do; None where results leave int32."""
    mantissas = multiplier.mantissa.tolist()
    shifts = [min(-exponent, LONGEST_SHIFT) for exponent in multiplier.exponent.tolist()]
    if min(shifts) < 1:
        return None
    if any((reach * mantissa) >> shift >= _LIMIT for mantissa, shift in zip(mantissas, shifts, strict=True)):
        return None
    return Factors(tuple(mantissas), tuple(shifts))
