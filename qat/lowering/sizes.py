"""Constants that are computed with the size of the batch, which the exported graph knows only as a symbol.

A class token expanded over the batch, positions for every sample, `torch.arange(len(x))`: each is computed for two
sizes of the batch. What comes out the same for every sample is a constant that broadcasts over the batch.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from qat.lowering.state import Unlowerable

#: Two sizes that no dimension of a network is likely to have by itself, or from which none follows by chance.
SIZES = (5, 7)


@dataclass(frozen=True)
class PerSize:
    """What a node makes for each of `SIZES`: numbers or tensors."""

    results: tuple


def per_size(symbolic) -> PerSize:
    """A symbolic number (SymInt, SymBool, SymFloat) for each size of the batch."""
    expression = symbolic.node.expr
    values = [expression.subs({symbol: size for symbol in expression.free_symbols}) for size in SIZES]
    kind = {torch.SymInt: int, torch.SymBool: bool, torch.SymFloat: float}[type(symbolic)]
    return PerSize(tuple(map(kind, values)))


def evaluate(function: Callable, args: tuple, kwargs: dict) -> PerSize:
    """`function` for each size of the batch."""
    results = []
    for index in range(len(SIZES)):

        def choose(leaf, index=index):
            return leaf.results[index] if isinstance(leaf, PerSize) else leaf

        own_args, own_kwargs = pytree.tree_map(choose, (args, kwargs), is_leaf=is_per_size)
        results.append(function(*own_args, **own_kwargs))
    return PerSize(tuple(results))


def is_per_size(leaf) -> bool:
    """Whether a leaf of arguments is there once for each size."""
    return isinstance(leaf, PerSize)


def collapsed(constant: PerSize):
    """The one constant that broadcasts to both, its batch dimension of size 1.

    Where a dimension is merged into the batch, that dimension stands in the place of the batch.
    """
    first, second = constant.results
    if not isinstance(first, Tensor):
        return first if first == second else constant
    if first.shape == second.shape and torch.equal(first, second):
        return first
    times, rest = divmod(len(first), SIZES[0]) if first.dim() == second.dim() > 0 else (0, 1)
    if rest or len(second) != times * SIZES[1] or not _repeats(first, second, times):
        raise Unlowerable(
            "it makes a constant that differs from sample to sample of the batch; use one that is the same"
        )
    return first[:times]


def _repeats(first: Tensor, second: Tensor, times: int) -> bool:
    """Whether both repeat the same `times` rows for every sample, as where a dimension is merged into the batch."""
    rows = first[:times]
    return all(
        torch.equal(tensor, rows.repeat(size, *[1] * (rows.dim() - 1)))
        for tensor, size in zip((first, second), SIZES, strict=True)
    )
