"""How kernels make codes of sums: rounded once, where that was proven (`qat.integer.one_rounding`), or in full.

The interpreter looks at how many sums there are before it pays for a proof, and keeps it; modules hold theirs as
tensors (`Rescaling`).
"""

import functools
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qat.integer.fixed_point import NARROW_BITS, Multiplier, requantize, requantize_once, requantize_product
from qat.integer.one_rounding import CHUNK, LAST, Exact, OneRounding, Rescale
from qat.integer.operations import ComputingOperation, MatMul, Mul, Requantize
from qat.integer.sixteen_bits import FixedMultiplier
from qat.integer.values import Grid
from qat.tracing import is_traced

#: Accumulators per step from which it pays to look for the exceptions first, and to put them right channel by channel.
_WORTHWHILE = 4
#: An accumulator that no operation reaches.
_NEVER = 2**40

#: Integers (O,), and what they are multiplied by.
Added = tuple[Tensor, int]

_roundings: "weakref.WeakKeyDictionary[ComputingOperation, OneRounding]" = weakref.WeakKeyDictionary()
_made: "weakref.WeakKeyDictionary[ComputingOperation, dict]" = weakref.WeakKeyDictionary()


def rounding_of(operation: ComputingOperation, source: Grid) -> Exact:
    """How the codes of an operation with a multiplier are rounded. source: the grid of its first input."""
    if isinstance(operation, Requantize) and source.bits > NARROW_BITS:
        return requantize_once
    if isinstance(operation, MatMul) and operation.rounds_once:
        return requantize_once
    is_product = isinstance(operation, Mul | Requantize) and not operation.rounds_first
    return requantize_product if is_product else requantize


def rescale(sums: Tensor, operation: ComputingOperation, grid: Grid, exact: Exact, *added: Added) -> Tensor:
    """Codes of `grid.dtype` that `exact` makes of sums and what is added to them, whole numbers below 2^31.

    sums: int32 or int64 (O, ...), with as many channels as the operation has multipliers. added: what each channel's
    sums lack, the same in every call of the operation.
    """
    multiplier = operation.multiplier
    flat = sums.reshape(len(multiplier.mantissa), -1)
    if isinstance(multiplier, Rescaling) and multiplier.once:
        return multiplier.codes(flat, _rounding_of(operation, grid, added)).reshape(sums.shape)
    limits, bias = (operation.clamp_min, operation.clamp_max), _total(added)
    steps = (operation.clamp_max - operation.clamp_min) * len(flat)
    if isinstance(multiplier, Multiplier) and flat.device.type == "cpu" and flat.numel() >= _WORTHWHILE * steps:
        fast = _rescale_of(operation, grid, exact)
        if fast is not None:
            return fast.codes(flat, bias).reshape(sums.shape)
    # No sum with its bias leaves int32: programs are checked for that.
    whole = flat if bias is None else flat + bias.to(flat.device)[:, None]
    if isinstance(multiplier, FixedMultiplier):
        return multiplier.codes(whole, grid, *limits).reshape(sums.shape)
    if isinstance(multiplier, Rescaling):
        return exact(whole.T, multiplier, grid, *limits).T.reshape(sums.shape)
    codes = [exact(piece.T, own, grid, *limits).T for piece, own in _pieces(whole, multiplier)]
    return torch.cat(codes, int(len(whole) == 1)).reshape(sums.shape)


def _total(added: Sequence[Added]) -> Tensor | None:
    """What is added in all, (O,)."""
    parts = [part if factor == 1 else part * factor for part, factor in added]
    return functools.reduce(torch.add, parts) if parts else None


def _rounding_of(operation: ComputingOperation, grid: Grid, added: Sequence[Added]) -> OneRounding:
    """How an operation of a module rounds; eager code looks once."""
    if is_traced():
        return operation.multiplier.rounding(operation, grid, _total(added))
    if operation not in _roundings:
        _roundings[operation] = operation.multiplier.rounding(operation, grid, _total(added))
    return _roundings[operation]


def _pieces(sums: Tensor, multiplier: Multiplier) -> Iterator[tuple[Tensor, Multiplier]]:
    """Parts of sums (O, M) that stay in a core's cache, whole rows of channels, or pieces of the only one."""
    channels, columns = sums.shape
    if sums.device.type != "cpu":
        yield sums, multiplier
    elif channels == 1:
        yield from ((piece, multiplier) for piece in sums.split(CHUNK, 1))
    else:
        size = max(CHUNK // columns, 1)
        parts = zip(sums.split(size), multiplier.mantissa.split(size), multiplier.exponent.split(size), strict=True)
        yield from ((piece, Multiplier(mantissa, exponent)) for piece, mantissa, exponent in parts)


def _rescale_of(operation: ComputingOperation, grid: Grid, exact: Exact) -> Rescale | None:
    made = _made.setdefault(operation, {})
    if grid not in made:
        made[grid] = Rescale.of(operation.multiplier, grid, operation.clamp_min, operation.clamp_max, exact)
    return made[grid]


@dataclass(frozen=True, eq=False)
class Rescaling:
    """What stands in the place of a `Multiplier` in modules: tensors alone, and no look at accumulators.

    mantissa, exponent: int32 (O,). once: whether one rounding gives the codes but for the exceptions; its mantissa and
    exponent they are then, and those of the multiplier otherwise. distance: int32 (O,), or None, and ties: as of
    `Rescale`. rows: int64 (R,), the channels with exceptions. accumulators, replaced: (K, R, 1), their accumulators,
    int64, and the codes of these; a row with fewer than K has accumulators that none equals.
    """

    mantissa: Tensor
    exponent: Tensor
    once: bool = False
    ties: int = 0
    distance: Tensor | None = None
    rows: Tensor | None = None
    accumulators: Tensor | None = None
    replaced: Tensor | None = None

    @classmethod
    def of(cls, operation: ComputingOperation, grid: Grid, exact: Exact, reach: int = LAST) -> "Rescaling":
        """The rescaling of an operation with a multiplier, to codes of `grid` that are those of `exact`.

        reach: no accumulator is larger.
        """
        multiplier = operation.multiplier
        if reach > LAST:
            return cls(multiplier.mantissa, multiplier.exponent)
        fast = Rescale.of(multiplier, grid, operation.clamp_min, operation.clamp_max, exact, reach)
        if fast is None:
            return cls(multiplier.mantissa, multiplier.exponent)
        parts = (fast.mantissa, -fast.shift, fast.distance)
        mantissa, exponent, distance = (None if part is None else part.to(torch.int32) for part in parts)
        if not fast.exceptions:
            return cls(mantissa, exponent, True, fast.ties, distance)
        listed: dict[int, list[tuple[int, int]]] = {}
        for channel, accumulator, code in fast.exceptions:
            listed.setdefault(channel, []).append((accumulator, code))
        most = max(map(len, listed.values()))
        filled = torch.tensor([found + [(_NEVER, 0)] * (most - len(found)) for found in listed.values()])
        accumulators, replaced = filled.permute(2, 1, 0)[..., None].contiguous()
        rows = torch.tensor(list(listed))
        return cls(mantissa, exponent, True, fast.ties, distance, rows, accumulators, replaced.to(grid.dtype))

    def rounding(self, operation: ComputingOperation, grid: Grid, bias: Tensor | None = None) -> OneRounding:
        """The one rounding, of sums that still lack their bias, (O,)."""
        limits = operation.clamp_min, operation.clamp_max
        return OneRounding.of(self.mantissa, -self.exponent, self.distance, self.ties, grid, limits).with_bias(bias)

    def codes(self, sums: Tensor, rounding: OneRounding) -> Tensor:
        """Codes (O, M) of the grid, of sums (O, M) that still lack their bias."""
        if is_traced() or sums.device.type != "cpu" or sums.numel() <= CHUNK:
            codes = rounding.codes(sums)
        else:
            codes = torch.cat([rounding.codes(piece) for piece in sums.split(max(CHUNK // len(sums), 1), 1)], 1)
        return codes if self.rows is None else self._put_right(sums, codes, rounding.bias)

    def _put_right(self, sums: Tensor, codes: Tensor, bias: Tensor | None) -> Tensor:
        chosen, mended = sums.index_select(0, self.rows), codes.index_select(0, self.rows)
        wanted = self.accumulators
        if bias is not None:
            wanted = wanted - bias.index_select(0, self.rows)[:, None]
        for accumulator, code in zip(wanted.unbind(), self.replaced.unbind(), strict=True):
            mended = torch.where(chosen == accumulator, code, mended)
        return codes.index_copy(0, self.rows, mended)
