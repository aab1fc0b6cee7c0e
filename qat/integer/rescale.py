"""Rescaling in four integer operations an element, proven equal to `qat.integer.fixed_point` for every accumulator.

Both rescalings of whole numbers round twice, as float32 does, and that takes some thirty operations an element. But
their codes ascend with the accumulator, and so do those of `(accumulator * mantissa + offset) >> shift`, which rounds
once. Two ascending functions are equal wherever they are equal on both sides of each step of one of them. So when a
`Rescale` is made, both are computed beside every step; the few accumulators where a second rounding comes out
differently are listed, and their codes are put right.
"""

import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from qat.integer.fixed_point import NARROW_BITS, Multiplier, requantize, requantize_once, requantize_product
from qat.integer.operations import ComputingOperation, MatMul, Mul, Requantize
from qat.integer.sixteen_bits import FixedMultiplier
from qat.integer.values import Grid
from qat.tracing import is_traced

#: Exact codes of accumulators (..., O): `requantize` or `requantize_product`.
Exact = Callable[[Tensor, Multiplier, Grid, int, int], Tensor]

#: Elements rescaled at a time: their int64 intermediates stay in a core's cache.
_CHUNK = 2**16
#: Shifts with which no sum leaves int64: products have up to 55 bits, zero points 17.
_SHIFTS = range(1, 45)
#: Listed accumulators per channel up to which putting them right costs less than computing every code in full.
_MOST_EXCEPTIONS = 8
#: Accumulators per step from which it pays to look for the exceptions first, and to put them right channel by channel.
_WORTHWHILE = 4
_LAST = 2**31 - 1
#: An accumulator that no operation reaches.
_NEVER = 2**40

_made: "weakref.WeakKeyDictionary[ComputingOperation, dict]" = weakref.WeakKeyDictionary()


def rounding_of(operation: ComputingOperation, source: Grid) -> Exact:
    """How the codes of an operation with a multiplier are rounded. source: the grid of its first input."""
    if isinstance(operation, Requantize) and source.bits > NARROW_BITS:
        return requantize_once
    if isinstance(operation, MatMul) and operation.rounds_once:
        return requantize_once
    is_product = isinstance(operation, Mul | Requantize) and not operation.rounds_first
    return requantize_product if is_product else requantize


def rescale(
    sums: Tensor, operation: ComputingOperation, grid: Grid, exact: Exact, bias: Tensor | None = None
) -> Tensor:
    """Codes of `grid.dtype` that `exact` makes of `sums + bias`, whole numbers below 2^31.

    sums: int32 or int64 (O, ...), with as many channels as the operation has multipliers. bias: integers (O,).
    """
    flat = sums.reshape(len(operation.multiplier.mantissa), -1)
    limits = operation.clamp_min, operation.clamp_max
    if isinstance(operation.multiplier, FixedMultiplier):
        whole = flat if bias is None else flat + bias.to(flat.device)[:, None]
        return operation.multiplier.codes(whole, grid, *limits).reshape(sums.shape)
    if isinstance(operation.multiplier, Rescaling):
        whole = flat if bias is None else flat + bias[:, None]
        return operation.multiplier.codes(whole, grid, *limits, exact).reshape(sums.shape)
    steps = (operation.clamp_max - operation.clamp_min) * len(flat)
    worthwhile = flat.device.type == "cpu" and flat.numel() >= _WORTHWHILE * steps
    fast = _rescale_of(operation, grid, exact) if worthwhile else None
    if fast is not None:
        return fast.codes(flat, bias).reshape(sums.shape)
    # No sum with its bias leaves int32: programs are checked for that.
    whole = flat if bias is None else flat + bias.to(flat.device)[:, None]
    pieces = _pieces(whole, operation.multiplier)
    codes = [exact(piece.T, own, grid, *limits).T for piece, own in pieces]
    return torch.cat(codes, int(len(whole) == 1)).reshape(sums.shape)


def _pieces(sums: Tensor, multiplier: Multiplier) -> Iterator[tuple[Tensor, Multiplier]]:
    """Parts of sums (O, M) that stay in a core's cache, whole rows of channels, or pieces of the only one."""
    channels, columns = sums.shape
    if sums.device.type != "cpu":
        yield sums, multiplier
    elif channels == 1:
        yield from ((piece, multiplier) for piece in sums.split(_CHUNK, 1))
    else:
        size = max(_CHUNK // columns, 1)
        parts = zip(sums.split(size), multiplier.mantissa.split(size), multiplier.exponent.split(size), strict=True)
        yield from ((piece, Multiplier(mantissa, exponent)) for piece, mantissa, exponent in parts)


def _rescale_of(operation: ComputingOperation, grid: Grid, exact: Exact) -> "Rescale | None":
    made = _made.setdefault(operation, {})
    if grid not in made:
        made[grid] = Rescale.of(operation.multiplier, grid, operation.clamp_min, operation.clamp_max, exact)
    return made[grid]


@dataclass(frozen=True, eq=False)
class Rescale:
    """`clamp((accumulator * mantissa + offset) >> shift)` per channel, except where another code is listed.

    mantissa, offset, shift: int64 (O, 1). exceptions: (channel, accumulator, code).
    """

    mantissa: Tensor
    offset: Tensor
    shift: Tensor
    grid: Grid
    clamp_min: int
    clamp_max: int
    exceptions: tuple[tuple[int, int, int], ...] = ()

    @classmethod
    def of(cls, multiplier: Multiplier, grid: Grid, clamp_min: int, clamp_max: int, exact: Exact) -> "Rescale | None":
        """What equals `exact` for every accumulator below 2^31; None where too many would have to be listed."""
        mantissa, shift = multiplier.mantissa.to(torch.int64)[:, None], -multiplier.exponent.to(torch.int64)[:, None]
        if int(shift.min()) not in _SHIFTS or int(shift.max()) not in _SHIFTS:
            return None
        one = torch.ones_like(shift)
        offset = (one << (shift - 1)) + grid.zero_point * (one << shift)
        rounded_once = cls(mantissa, offset, shift, grid, clamp_min, clamp_max)
        exceptions = _exceptions(rounded_once, multiplier, exact)
        if exceptions is None:
            return None
        return cls(mantissa, offset, shift, grid, clamp_min, clamp_max, exceptions)

    def codes(self, sums: Tensor, bias: Tensor | None = None) -> Tensor:
        """Codes (O, M) of `grid.dtype` for sums (O, M) that still lack their bias (O,)."""
        codes = torch.empty(sums.shape, dtype=self.grid.dtype)
        offset = self.offset if bias is None else self.offset + bias.to(torch.int64)[:, None] * self.mantissa
        width = max(_CHUNK // len(sums), 1)
        for sum_piece, code_piece in zip(sums.split(width, 1), codes.split(width, 1), strict=True):
            scaled = torch.addcmul(offset, sum_piece.to(torch.int64), self.mantissa)
            code_piece.copy_(scaled.bitwise_right_shift_(self.shift).clamp_(self.clamp_min, self.clamp_max))
        for channel, accumulator, code in self.exceptions:
            wanted = accumulator if bias is None else accumulator - int(bias[channel])
            if abs(wanted) <= _LAST:
                codes[channel].masked_fill_(sums[channel] == wanted, code)
        return codes

    def steps(self) -> Tensor:
        """The smallest accumulator of each code above clamp_min, int64 (O, codes)."""
        wanted = torch.arange(self.clamp_min + 1, self.clamp_max + 1) << self.shift
        return -((self.offset - wanted).div(self.mantissa, rounding_mode="floor"))


@dataclass(frozen=True, eq=False)
class Rescaling:
    """What stands in the place of a `Multiplier` where code is traced: tensors alone, and no look at accumulators.

    mantissa, exponent: those of the multiplier. once: whether one rounding gives the codes but for the exceptions.
    rows: int64 (R,), the channels with exceptions. accumulators, replaced: (K, R, 1), their accumulators, int64, and
    the codes of these; a row with fewer than K has accumulators that none equals.
    """

    mantissa: Tensor
    exponent: Tensor
    once: bool = False
    rows: Tensor | None = None
    accumulators: Tensor | None = None
    replaced: Tensor | None = None

    @classmethod
    def of(cls, operation: ComputingOperation, grid: Grid, exact: Exact) -> "Rescaling":
        """The rescaling of an operation with a multiplier, to codes of `grid` that are those of `exact`."""
        multiplier = operation.multiplier
        fast = Rescale.of(multiplier, grid, operation.clamp_min, operation.clamp_max, exact)
        if fast is None or not fast.exceptions:
            return cls(multiplier.mantissa, multiplier.exponent, fast is not None)
        listed: dict[int, list[tuple[int, int]]] = {}
        for channel, accumulator, code in fast.exceptions:
            listed.setdefault(channel, []).append((accumulator, code))
        most = max(map(len, listed.values()))
        filled = torch.tensor([found + [(_NEVER, 0)] * (most - len(found)) for found in listed.values()])
        accumulators, replaced = filled.permute(2, 1, 0)[..., None].contiguous()
        rows = torch.tensor(list(listed))
        return cls(multiplier.mantissa, multiplier.exponent, True, rows, accumulators, replaced.to(grid.dtype))

    def codes(self, sums: Tensor, grid: Grid, clamp_min: int, clamp_max: int, exact: Exact) -> Tensor:
        """Codes (O, M) of `grid.dtype`, of sums (O, M) with their bias."""
        if not self.once:
            return exact(sums.T, self, grid, clamp_min, clamp_max).T
        if is_traced() or sums.device.type != "cpu":
            return self._rounded_once(sums, grid, clamp_min, clamp_max)
        pieces = sums.split(max(_CHUNK // len(sums), 1), 1)
        return torch.cat([self._rounded_once(piece, grid, clamp_min, clamp_max) for piece in pieces], 1)

    def _rounded_once(self, sums: Tensor, grid: Grid, clamp_min: int, clamp_max: int) -> Tensor:
        shift = -self.exponent.to(torch.int64)[:, None]
        step = torch.ones_like(shift) << shift
        offset = (step >> 1) + step * grid.zero_point
        scaled = torch.addcmul(offset, sums.to(torch.int64), self.mantissa.to(torch.int64)[:, None])
        codes = (scaled >> shift).clamp(clamp_min, clamp_max).to(grid.dtype)
        if self.rows is None:
            return codes
        chosen, mended = sums.index_select(0, self.rows), codes.index_select(0, self.rows)
        for accumulator, code in zip(self.accumulators.unbind(), self.replaced.unbind(), strict=True):
            mended = torch.where(chosen == accumulator, code, mended)
        return codes.index_copy(0, self.rows, mended)


def _exceptions(fast: Rescale, multiplier: Multiplier, exact: Exact) -> tuple[tuple[int, int, int], ...] | None:
    """Accumulators for which `exact` gives other codes; None for too many.

    Where the codes differ beside a step, the neighbours are looked at until they agree. Between two accumulators for
    which they agree, and with no step in between, they agree everywhere.
    """
    channels = len(fast.mantissa)
    steps = fast.steps()
    ends = torch.tensor([-_LAST, _LAST]).expand(channels, 2)
    looked_at = torch.cat([steps, steps - 1, ends], 1).clamp_(-_LAST, _LAST)
    channel = torch.arange(channels)[:, None].expand_as(looked_at).flatten()
    accumulator = looked_at.flatten()
    found: dict[tuple[int, int], int] = {}
    while len(accumulator):
        wanted = _exact_codes(accumulator, channel, fast, multiplier, exact)
        differing = wanted != _once_rounded(accumulator, channel, fast)
        channel, accumulator, wanted = channel[differing], accumulator[differing], wanted[differing]
        found |= {
            (place, value): code
            for place, value, code in zip(channel.tolist(), accumulator.tolist(), wanted.tolist(), strict=True)
        }
        if len(found) > _MOST_EXCEPTIONS * channels:
            return None
        beside = {
            (place, value + side)
            for place, value in zip(channel.tolist(), accumulator.tolist(), strict=True)
            for side in (-1, 1)
            if abs(value + side) <= _LAST and (place, value + side) not in found
        }
        channel, accumulator = torch.tensor(sorted(beside), dtype=torch.int64).reshape(-1, 2).T
    return tuple((place, value, code) for (place, value), code in sorted(found.items()))


def _exact_codes(accumulator: Tensor, channel: Tensor, fast: Rescale, multiplier: Multiplier, exact: Exact) -> Tensor:
    own = Multiplier(multiplier.mantissa[channel], multiplier.exponent[channel])
    return exact(accumulator, own, fast.grid, fast.clamp_min, fast.clamp_max).to(torch.int64)


def _once_rounded(accumulator: Tensor, channel: Tensor, fast: Rescale) -> Tensor:
    mantissa, offset, shift = (part[channel, 0] for part in (fast.mantissa, fast.offset, fast.shift))
    return ((accumulator * mantissa + offset) >> shift).clamp(fast.clamp_min, fast.clamp_max)
