"""Writes into parts of a tensor (`x[:, :4] = y`, `x[mask] = 0`), as functions that leave the tensor alone."""

from types import EllipsisType

import torch
from torch import Tensor

#: One dimension that an index narrows down, and the places it names in it.
Place = tuple[int, range]


def as_function(args: tuple) -> tuple | None:
    """(x, index, value) of `x[index] = value`, its value a tensor, for `with_value_at`; None where that cannot follow.

    It follows numbers, slices, `...` and `None`; a mask, alone or behind full slices, for a value of one element.
    """
    x, index, value = args
    index = index if isinstance(index, tuple) else (index,)
    if not isinstance(value, Tensor):
        if not isinstance(value, bool | int | float):
            return None
        value = torch.tensor(value, dtype=x.dtype, device=x.device)
    if _mask_of(index) is not None:
        return (x, index, value) if value.numel() == 1 else None
    if not all(entry is None or _is_basic(entry) for entry in index):
        return None
    if value.dim() == 0:
        value = value.reshape((1,) * x[index].dim())
    return x, index, value


def likeness(x: Tensor) -> tuple[torch.Size, torch.dtype, torch.device]:
    """What of `x` remains when something is copied into it."""
    return x.shape, x.dtype, x.device


def copied(source: Tensor, shape: torch.Size, dtype: torch.dtype, device: torch.device) -> Tensor:
    """What a tensor of this `likeness` is after `source` was copied into it, a new tensor."""
    return source.expand(shape).to(device, dtype)


def with_value_at(x: Tensor, index: tuple, value: Tensor) -> Tensor:
    """`x` as it is after `x[index] = value`, a new tensor. What moves are slices, joined again."""
    value = value.to(x.dtype)
    masked = _mask_of(index)
    if masked is not None:
        before, mask = masked
        behind = x.dim() - before - mask.dim()
        return torch.where(mask.reshape(*[1] * before, *mask.shape, *[1] * behind), value.reshape(()), x)
    places, kept = _places(index, x)
    if any(not named for _, named in places):
        return x
    shape = x[index].shape
    value = value if value.shape == shape else value.expand(shape)
    return _put(x, places, value if shape == torch.Size(kept) else value.reshape(kept))


def _is_basic(entry) -> bool:
    return isinstance(entry, slice | EllipsisType) or (isinstance(entry, int) and not isinstance(entry, bool))


def _mask_of(index: tuple) -> tuple[int, Tensor] | None:
    """(dimensions before it, mask) of an index that is one mask behind full slices, else None."""
    *before, last = index
    is_mask = isinstance(last, Tensor) and last.dtype == torch.bool
    return (len(before), last) if is_mask and all(entry == slice(None) for entry in before) else None


def _places(index: tuple, x: Tensor) -> tuple[list[Place], list]:
    """(dimensions that `index` narrows down, shape of `x[index]` with a 1 for every dimension it picks from)."""
    entries = [entry for entry in index if entry is not None]
    if any(entry is ... for entry in entries):
        middle = next(position for position, entry in enumerate(entries) if entry is ...)
        full = x.dim() - len(entries) + 1
        entries[middle : middle + 1] = [slice(None)] * full
    places, kept = [], list(x.shape)
    for dim, entry in enumerate(entries):
        if isinstance(entry, slice) and entry == slice(None):
            continue
        if isinstance(entry, int):
            entry = slice(entry, entry + 1 if entry != -1 else None)
        named = range(x.shape[dim])[entry]
        kept[dim] = len(named)
        if len(named) != x.shape[dim] or named.step != 1:
            places.append((dim, named))
    return places, kept


def _put(x: Tensor, places: list[Place], value: Tensor) -> Tensor:
    """`x` with `value` where all `places` meet. value: of x's rank."""
    if not places:
        return value
    (dim, named), *further = places
    if further:
        value = _put(_cut(x, dim, named.start, named.stop, named.step), further, value)
    if named.step != 1:
        order = {row: x.shape[dim] + position for position, row in enumerate(named)}
        both = torch.cat([x, value], dim=dim)
        chosen = torch.tensor([order.get(row, row) for row in range(x.shape[dim])], device=x.device)
        return both.index_select(dim, chosen)
    parts = [value]
    if named.start > 0:
        parts.insert(0, _cut(x, dim, 0, named.start))
    if named.stop < x.shape[dim]:
        parts.append(_cut(x, dim, named.stop, x.shape[dim]))
    return torch.cat(parts, dim=dim) if len(parts) > 1 else value


def _cut(x: Tensor, dim: int, start: int, stop: int, step: int = 1) -> Tensor:
    return x[(slice(None),) * dim + (slice(start, stop, step),)]
