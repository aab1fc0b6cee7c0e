"""In which order a tensor of a file has the dimensions of a value, and how operations follow it.

TensorFlow Lite's windows want channels last, programs have them first. An order says, for each dimension of a tensor,
which dimension of the value it is, the batch's 0 first: (0, 2, 3, 1) of (N, C, H, W) is channels last. Nothing is
transposed until an operation asks for an order that is not there.
"""

import math
from collections.abc import Sequence

Order = tuple[int, ...]
Shape = tuple[int, ...]


def usual(rank: int) -> Order:
    """The value's own order. rank: of the value, without the batch."""
    return tuple(range(rank + 1))


def channels_last(rank: int) -> Order:
    """The order of windows. rank: of the value (C, *spatial), without the batch."""
    return (0, *range(2, rank + 1), 1)


def permuted(shape: Shape, order: Order) -> Shape:
    """Shape of a tensor in this order, with a batch of 1. shape: of the value, without the batch."""
    full = (1, *shape)
    return tuple(full[dim] for dim in order)


def between(held: Order, wanted: Order) -> tuple[int, ...]:
    """What a transposition from one order to another permutes."""
    return tuple(held.index(dim) for dim in wanted)


def moves_data(shape: Shape, held: Order, wanted: Order) -> bool:
    """Whether the orders differ in more than where they have dimensions of size 1."""
    first, second = ([dim for dim in order if dim and shape[dim - 1] > 1] for order in (held, wanted))
    return first != second


def transposed(order: Order, permutation: Order) -> Order:
    """The order of a tensor seen as the value that a Transpose makes of it."""
    return tuple(permutation.index(dim) for dim in order)


def without(order: Order, dims: Sequence[int]) -> Order:
    """The order of what is left where `dims` are taken out of the value."""
    left = sorted(set(order) - set(dims))
    return tuple(left.index(dim) for dim in order if dim not in dims)


def reshaped(source: Shape, target: Shape, order: Order) -> Order | None:
    """The order of `target` that a tensor of `source` in `order` has when it is reshaped; None where there is none.

    Dimensions that are merged must lie beside one another in the tensor, as they do in the value.
    """
    places = [dim for dim in order if dim and source[dim - 1] > 1]
    made: list[tuple[int, tuple[int, ...]]] = []
    for merged, split in _groups(source, target, places):
        start = places.index(merged[0])
        if tuple(places[start : start + len(merged)]) != merged:
            return None
        made.append((start, split))
    ordered = [dim for _, split in sorted(made) for dim in split]
    if ordered == sorted(ordered):
        return usual(len(target))
    return (0, *ordered, *(dim for dim, size in enumerate(target, start=1) if size == 1))


def _groups(source: Shape, target: Shape, places: Sequence[int]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Smallest runs of dimensions, none of size 1, that hold the same elements before and behind."""
    groups, first, second = [], [], []
    rest = [dim for dim, size in enumerate(target, start=1) if size > 1]
    for dim in sorted(places):
        first.append(dim)
        held = math.prod(source[place - 1] for place in first)
        while rest and math.prod(target[place - 1] for place in second) < held:
            second.append(rest.pop(0))
        if math.prod(target[place - 1] for place in second) == held:
            groups.append((tuple(first), tuple(second)))
            first, second = [], []
    return groups
