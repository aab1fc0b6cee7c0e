"""Rescaling of sums with one multiplication, one addition and one shift, proven equal to the program's arithmetic.

`qat.integer.fixed_point` rounds twice, as float32 does. Its codes ascend with the sum, so they are known by the
smallest sum of each code; and `(sum * multiplier + half) >> shift` gives the same codes if it changes at the same
sums. That is two bounds on the multiplier for each code. Any multiplier between all of them is exact, and with 31 bits
instead of 24 there mostly is one. Where the bounds cross it is a sum or two that no multiplier has right: strays, which
are known one by one, and have the code of the sum beside them.
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
BITS, FINER = 31, 7
#: Shifts up to which half a step is an int64 that a product of 62 bits can be added to.
LONGEST_PRODUCT = 62
#: Codes of 9 bits with their sign, raised by it, stay inside int64.
_LONGEST_SHIFT = 54
#: What results stay below, with room for a zero point, so that int32 holds them.
_LIMIT = 2**31 - 2**17


@dataclass(frozen=True)
class Factors:
    """`code = clamp(((sum * multiplier + (1 << shift >> 1)) >> shift) + zero_point)`, one of each per channel."""

    multipliers: tuple[int, ...]
    shifts: tuple[int, ...]


@dataclass(frozen=True)
class Rounding:
    """`Factors` of one channel. strays: (sum, 1 or -1) for each that has the code of the sum above or below it."""

    multiplier: int
    shift: int
    strays: tuple[tuple[int, int], ...] = ()


def single_rounding(
    multiplier: Multiplier, grid: Grid, clamp: tuple[int, int], reach: int, exact: Exact
) -> list[Rounding | None]:
    """For every channel what gives the codes of `exact` for every sum of at most `reach`, with the fewest strays.

    None for channels that have none. clamp: the codes that results are limited to.
    """
    reach = max(reach, 1)
    steps = _steps(multiplier, grid, clamp, reach, exact)
    shift = -multiplier.exponent.to(torch.int64)
    finer = (shift + FINER).clamp(max=_LONGEST_SHIFT)
    bounds = _bounds(finer.clamp(min=1), clamp[0] + 1 - grid.zero_point, steps.shape[1])
    mantissa = multiplier.mantissa.to(torch.int64)
    finest = mantissa << (finer - shift).clamp(min=0) >> (shift - finer).clamp(0, 62)
    chosen, begins = _fewest_strays(finest, bounds, steps, reach)
    whole = (finer >= 1) & ((reach * chosen) >> finer.clamp(min=1) < _LIMIT)
    differing = begins.clamp(-reach, reach + 1) != steps
    strays: list[tuple[tuple[int, int], ...] | None] = [()] * len(steps)
    for channel in differing.any(1).nonzero().flatten().tolist():
        strays[channel] = _strays(steps[channel], begins[channel], differing[channel])
    return [
        Rounding(*factors, found) if fits and found is not None else None
        for *factors, fits, found in zip(chosen.tolist(), finer.tolist(), whole.tolist(), strays, strict=True)
    ]


def _steps(multiplier: Multiplier, grid: Grid, clamp: tuple[int, int], reach: int, exact: Exact) -> Tensor:
    """(channels, codes above the lowest): the smallest sum of each code, reach + 1 where no sum has it.

    They lie beside what real numbers give, and are looked for there first: between `below` and `above`.
    """
    wanted = torch.arange(clamp[0] + 1, clamp[1] + 1)[:, None]

    def reached(sums: Tensor) -> Tensor:
        codes = exact(sums.clamp(-reach, reach), multiplier, grid, *clamp).to(torch.int64)
        return (codes >= wanted) & (sums >= -reach) | (sums > reach)

    factor = multiplier.to_float().double()
    guess = ((wanted - grid.zero_point - 0.5) / factor).clamp(-reach - 1, reach + 1)
    margin = (guess.abs() / 2**20 + 1 / (factor * 2**14)).clamp(max=reach).to(torch.int64) + 2
    middle = guess.to(torch.int64)
    below, above = (middle - margin).clamp(min=-reach - 1), (middle + margin).clamp(max=reach + 1)
    below = torch.where(reached(below), -reach - 1, below)
    above = torch.where(reached(above), above, reach + 1)
    while bool((above - below > 1).any()):
        middle = (below + above) >> 1
        found = reached(middle)
        above, below = torch.where(found, middle, above), torch.where(found, below, middle)
    return above.T.contiguous()


def _bounds(shift: Tensor, first: int, count: int) -> Tensor:
    """(channels, codes): what sum * multiplier must reach for each code. first: counted from the zero point."""
    return ((first + torch.arange(count)) << shift[:, None]) - (1 << shift >> 1)[:, None]


def _fewest_strays(finest: Tensor, bounds: Tensor, steps: Tensor, reach: int) -> tuple[Tensor, Tensor]:
    """(multiplier of each channel, the smallest sum of each code that it gives). finest: multipliers without rounding.

    sum * multiplier must reach a bound from its step on, and not before.
    """
    least, most = torch.ones_like(bounds), torch.full_like(bounds, 2**BITS - 1)
    before, reached, missed = steps - 1, steps <= reach, steps - 1 >= -reach
    lows = torch.where(reached & (steps > 0), _up(bounds, steps), least)
    lows = torch.maximum(lows, torch.where(missed & (before < 0), _up(bounds - 1, before), least))
    highs = torch.where(reached & (steps < 0), _down(bounds, steps), most)
    highs = torch.minimum(highs, torch.where(missed & (before > 0), _down(bounds - 1, before), most))
    low = torch.cat([lows, torch.ones_like(finest)[:, None]], 1).amax(1)
    high = torch.cat([highs, torch.full_like(finest, 2**BITS - 1)[:, None]], 1).amin(1)
    between = torch.where(low <= high, finest.clamp(low, torch.maximum(low, high)), finest)
    tried = torch.stack([between, low, high]).clamp(1, 2**BITS - 1)
    begins = _up(bounds, tried[..., None])
    strays = (begins.clamp(-reach, reach + 1) - steps).abs().sum(-1)
    best = strays.argmin(0)
    channels = torch.arange(len(finest))
    return tried[best, channels], begins[best, channels]


def _strays(steps: Tensor, begins: Tensor, differing: Tensor) -> tuple[tuple[int, int], ...] | None:
    """The strays of one channel; None where the sums beside them have other codes. differing: where to look."""
    rises = (begins > steps)[differing]
    sums = torch.where(rises, steps[differing], begins[differing])
    moved = sums + torch.where(rises, 1, -1)
    right = ((sums[:, None] >= steps) == (moved[:, None] >= begins)).all()
    if not right or bool(torch.isin(moved, sums).any()) or bool((sums.abs() >= 2**BITS - 2).any()):
        return None
    return tuple(sorted(set(zip(sums.tolist(), (moved - sums).tolist(), strict=True))))


def _up(number: Tensor, divisor: Tensor) -> Tensor:
    """number / divisor, rounded up; divisors of 0 count as 1."""
    return -torch.div(-number, torch.where(divisor == 0, 1, divisor), rounding_mode="floor")


def _down(number: Tensor, divisor: Tensor) -> Tensor:
    """number / divisor, rounded down; divisors of 0 count as 1."""
    return torch.div(number, torch.where(divisor == 0, 1, divisor), rounding_mode="floor")


def rounded_once(multiplier: Multiplier, reach: int) -> list[Rounding | None] | None:
    """What `fixed_point.round_once` computes for every channel, which rounds once; None where results leave int32."""
    channels = []
    for mantissa, exponent in zip(multiplier.mantissa.tolist(), multiplier.exponent.tolist(), strict=True):
        shift = min(-exponent, LONGEST_SHIFT)
        if shift < 1 or (reach * mantissa) >> shift >= _LIMIT:
            return None
        finer = min(FINER, LONGEST_PRODUCT - shift)
        channels.append(Rounding(mantissa << finer, shift + finer))
    return channels
