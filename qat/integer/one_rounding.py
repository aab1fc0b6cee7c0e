"""Rescaling in a few integer operations an element, proven equal to `qat.integer.fixed_point` for every accumulator.

Both rescalings of whole numbers round twice, as float32 does, and that takes some thirty operations an element. But
their codes ascend with the accumulator, and so do those of `(accumulator * mantissa + offset) >> shift`, which rounds
once. Two ascending functions are equal wherever they are equal on both sides of each step of one of them. So when a
`Rescale` is made, both are computed beside every step. Where a second rounding comes out differently, products near a
tie go to the even code (`qat.integer.ties`); the few accumulators for which that is not enough are listed, and their
codes are put right.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from qat.integer.fixed_point import NARROW_BITS, Multiplier, requantize_once, requantize_product
from qat.integer.ties import LONGEST_SHIFT, tie_distances
from qat.integer.values import Grid
from qat.tracing import is_traced

#: Exact codes of accumulators (..., O): `requantize` or `requantize_product`.
Exact = Callable[[Tensor, Multiplier, Grid, int, int], Tensor]

#: Elements rescaled at a time: their int64 intermediates stay in a core's cache.
CHUNK = 2**16
#: Listed accumulators per channel up to which putting them right costs less than computing every code in full.
_MOST_EXCEPTIONS = 8
#: Accumulators per channel that are looked at for it, of which distances from ties spare most: two for each code.
_MOST_LOOKED_AT = 512
#: The largest accumulator that a program may have.
LAST = 2**31 - 1


@dataclass(frozen=True, eq=False)
class OneRounding:
    """`clamp(((sum * mantissa + offset) >> shift) + zero)` per channel, where products near a tie go to the even code.

    mantissa, offset, shift: int64 (O, 1). distance: int64 (O, 1), within which a product counts as a tie, and which the
    offset lacks; None where no tie has to go down. zero: what is added to the code at last, that the even ones are even
    before. bias: what sums still lack, (O,); it is part of the offset.
    """

    mantissa: Tensor
    offset: Tensor
    shift: Tensor
    distance: Tensor | None
    zero: int
    grid: Grid
    clamp_min: int
    clamp_max: int
    bias: Tensor | None = None

    @classmethod
    def of(
        cls, mantissa: Tensor, shift: Tensor, distance: Tensor | None, ties: int, grid: Grid, limits: tuple[int, int]
    ) -> "OneRounding":
        """mantissa, shift, distance: integers (O,). ties: a code that ties go to."""
        mantissa, shift = mantissa.to(torch.int64)[:, None], shift.to(torch.int64)[:, None]
        zero = 0 if distance is None else ties % 2
        offset = (torch.ones_like(shift) << (shift - 1)) + ((grid.zero_point - zero) << shift)
        if distance is not None:
            distance = distance.to(torch.int64)[:, None]
            offset = offset - distance
        return cls(mantissa, offset, shift, distance, zero, grid, *limits)

    def with_bias(self, bias: Tensor | None) -> "OneRounding":
        """The codes of sums that still lack their bias, (O,)."""
        if bias is None:
            return self
        return replace(self, offset=_added_product(self.offset, bias[:, None], self.mantissa), bias=bias)

    def codes(self, sums: Tensor) -> Tensor:
        """Codes (O, M) of `grid.dtype`, of sums (O, M)."""
        scaled = _added_product(self.offset, sums, self.mantissa)
        if self.distance is not None:
            odd = (scaled >> self.shift).bitwise_and_(1)
            scaled = _added_product(scaled, odd, self.distance << 1)
        steps = scaled.bitwise_right_shift_(self.shift)
        if self.zero:
            steps = steps.add_(self.zero)
        return steps.clamp_(self.clamp_min, self.clamp_max).to(self.grid.dtype)


def _added_product(offset: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """offset + first * second, int64; compiled code would compute torch.addcmul of integers in float32 (torch 2.13)."""
    return offset + first * second if is_traced() else torch.addcmul(offset, first, second)


@dataclass(frozen=True, eq=False)
class Rescale:
    """One rounding, except where another code is listed.

    mantissa, shift: int64 (O,). distance: int64 (O,), or None. ties: a code that ties go to. exceptions: (channel,
    accumulator, code).
    """

    mantissa: Tensor
    shift: Tensor
    grid: Grid
    clamp_min: int
    clamp_max: int
    ties: int
    distance: Tensor | None = None
    exceptions: tuple[tuple[int, int, int], ...] = ()

    @classmethod
    def of(
        cls, multiplier: Multiplier, grid: Grid, clamp_min: int, clamp_max: int, exact: Exact, reach: int = LAST
    ) -> "Rescale | None":
        """What equals `exact` for every accumulator up to `reach`; None where too many would have to be listed."""
        mantissa, shift = multiplier.mantissa.to(torch.int64), -multiplier.exponent.to(torch.int64)
        # Sums that make wide codes may be wider than what is looked at here.
        unlimited = exact is requantize_once or grid.bits > NARROW_BITS
        if int(shift.min()) < 1 or unlimited and int(shift.max()) > LONGEST_SHIFT:
            return None
        # What is shifted further comes to nothing beside a step, but for a few accumulators, which are listed.
        mantissa = (mantissa >> (shift - LONGEST_SHIFT).clamp(0, 62)).clamp(min=1)
        ties = grid.unsigned_offset if exact is requantize_product else grid.zero_point
        half_up = cls(mantissa, shift.clamp(max=LONGEST_SHIFT), grid, clamp_min, clamp_max, ties)
        exceptions = _exceptions(half_up, multiplier, exact, reach)
        if exceptions is None:
            return None
        found = half_up._without(exceptions, reach) if exceptions.numel() else half_up
        return found if len(found.exceptions) <= _MOST_EXCEPTIONS * len(mantissa) else None

    @functools.cached_property
    def rounding(self) -> OneRounding:
        """What computes the codes but for the exceptions."""
        limits = self.clamp_min, self.clamp_max
        return OneRounding.of(self.mantissa, self.shift, self.distance, self.ties, self.grid, limits)

    def codes(self, sums: Tensor, bias: Tensor | None = None) -> Tensor:
        """Codes (O, M) of `grid.dtype` for sums (O, M) that still lack their bias (O,)."""
        codes = torch.empty(sums.shape, dtype=self.grid.dtype)
        rounding, width = self.rounding.with_bias(bias), max(CHUNK // len(sums), 1)
        for sum_piece, code_piece in zip(sums.split(width, 1), codes.split(width, 1), strict=True):
            code_piece.copy_(rounding.codes(sum_piece))
        for channel, accumulator, code in self.exceptions:
            wanted = accumulator if bias is None else accumulator - int(bias[channel])
            if abs(wanted) <= LAST:
                codes[channel].masked_fill_(sums[channel] == wanted, code)
        return codes

    def steps(self) -> Tensor:
        """The smallest accumulator of each code above clamp_min, int64 (O, codes), of halves that go up."""
        shift = self.shift[:, None]
        offset = (torch.ones_like(shift) << (shift - 1)) + (self.grid.zero_point << shift)
        wanted = torch.arange(self.clamp_min + 1, self.clamp_max + 1) << shift
        return -((offset - wanted).div(self.mantissa[:, None], rounding_mode="floor"))

    def _without(self, exceptions: Tensor, reach: int) -> "Rescale":
        """With distances from ties for the channels that have some, and the exceptions of the others.

        exceptions: int64 (4, K), what `_exceptions` gives.
        """
        channel, accumulator, code, half_up = exceptions
        places, row = channel.unique(return_inverse=True)
        steps, first = self.steps()[places], self.clamp_min + 1
        for ahead in range(int((code - half_up).abs().max())):  # codes between the two begin earlier, or later
            earlier, later = half_up + ahead < code, half_up - ahead > code
            begins = row * steps.shape[1] + half_up - first
            flat = steps.view(-1)
            flat.scatter_reduce_(0, begins[earlier] + ahead + 1, accumulator[earlier], "amin")
            flat.scatter_reduce_(0, begins[later] - ahead, accumulator[later] + 1, "amax")
        factors, zero_point = (self.mantissa[places], self.shift[places]), self.grid.zero_point
        *parts, found = tie_distances(*factors, steps, first - zero_point, self.ties - zero_point, reach)
        before = (self.mantissa, self.shift, torch.zeros_like(self.shift))
        mantissa, shift, distance = (
            whole.index_copy(0, places[found], part[found]) for whole, part in zip(before, parts, strict=True)
        )
        left = tuple(map(tuple, exceptions[:3, ~found[row]].T.tolist()))
        distance = distance if bool(distance.any()) else None
        return replace(self, mantissa=mantissa, shift=shift, distance=distance, exceptions=left)


def _exceptions(fast: Rescale, multiplier: Multiplier, exact: Exact, reach: int) -> Tensor | None:
    """(channel, accumulator, code, code of half up), int64 (4, K), where `exact` gives another; None for too many.

    Where the codes differ beside a step, the neighbours are looked at until they agree. Between two accumulators for
    which they agree, and with no step in between, they agree everywhere.
    """
    channels = len(fast.mantissa)
    steps = fast.steps()
    ends = torch.tensor([-reach, reach]).expand(channels, 2)
    looked_at = torch.cat([steps, steps - 1, ends], 1).clamp_(-reach, reach)
    channel = torch.arange(channels)[:, None].expand_as(looked_at).flatten()
    accumulator = looked_at.flatten()
    found = torch.empty(4, 0, dtype=torch.int64)
    while len(accumulator):
        wanted = _exact_codes(accumulator, channel, fast, multiplier, exact)
        half_up = _half_up(accumulator, channel, fast)
        differing = wanted != half_up
        new = torch.stack([channel, accumulator, wanted, half_up])[:, differing]
        found = _distinct(torch.cat([found, new], 1), reach)
        if found.shape[1] > _MOST_LOOKED_AT * channels:
            return None
        beside = torch.cat([new[:2] + torch.tensor([[0], [side]]) for side in (-1, 1)], 1)
        beside = _distinct(beside[:, beside[1].abs() <= reach], reach)
        known = torch.isin(_place(beside, reach), _place(found, reach))
        channel, accumulator = beside[:, ~known]
    return found


def _place(entries: Tensor, reach: int) -> Tensor:
    """One number for each (channel, accumulator, ...), ascending in this order; entries: int64 (2 or more, K)."""
    return entries[0] * (2 * reach + 1) + entries[1] + reach


def _distinct(entries: Tensor, reach: int) -> Tensor:
    """Entries of different accumulators of a channel, in ascending order."""
    place, order = _place(entries, reach).sort(stable=True)
    is_first = torch.ones_like(place, dtype=torch.bool)
    is_first[1:] = place[1:] != place[:-1]
    return entries[:, order[is_first]]


def _exact_codes(accumulator: Tensor, channel: Tensor, fast: Rescale, multiplier: Multiplier, exact: Exact) -> Tensor:
    own = Multiplier(multiplier.mantissa[channel], multiplier.exponent[channel])
    return exact(accumulator, own, fast.grid, fast.clamp_min, fast.clamp_max).to(torch.int64)


def _half_up(accumulator: Tensor, channel: Tensor, fast: Rescale) -> Tensor:
    """What halves that go up give."""
    mantissa, shift = fast.mantissa[channel], fast.shift[channel]
    offset = (torch.ones_like(shift) << (shift - 1)) + (fast.grid.zero_point << shift)
    return ((accumulator * mantissa + offset) >> shift).clamp(fast.clamp_min, fast.clamp_max)
