"""Constants that are computed with the size of the batch or a length, which the exported graph knows as symbols only.

A class token expanded over the batch, positions for every sample, `torch.arange(len(x))`: each is computed for two
sizes of the batch, and for a shorter length. What comes out the same for every sample is a constant that broadcasts
over the batch; what a shorter length makes must be the front of what the recorded one makes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import sympy
import torch
from torch import Tensor
from torch.fx import Node
from torch.utils import _pytree as pytree

from qat.integer.lengths import Length
from qat.lowering.lengths import NoLength, batch_symbols, length_of, lengths_of
from qat.lowering.state import Unlowerable

#: Two sizes that no dimension of a network is likely to have by itself, or from which none follows by chance; and
#: whether lengths are shorter than recorded.
SIZES = (5, 7)
_CASES = ((5, False), (7, False), (5, True))

#: Operations that read nothing of their operand but its shape and type.
OF_A_SHAPE = frozenset(
    getattr(torch.ops.aten, name).default for name in ("zeros_like", "ones_like", "full_like", "empty_like")
)
#: Operations that read nothing of their first operand but its type.
OF_A_TYPE = frozenset(
    getattr(torch.ops.aten, name).default for name in ("new_zeros", "new_ones", "new_full", "new_empty")
)


@dataclass(frozen=True)
class PerSize:
    """What a node makes for each of `_CASES`: numbers or tensors."""

    results: tuple


def per_size(symbolic, lengths: Mapping[sympy.Symbol, Length]) -> "PerSize | int":
    """A symbolic number (SymInt, SymBool, SymFloat) for each case; or a `Length`, where it is one."""
    expression = symbolic.node.expr
    if isinstance(symbolic, torch.SymInt) and not batch_symbols(symbolic, lengths):
        try:
            return length_of(expression, lengths)
        except NoLength:
            pass  # a number like any other that is computed with the length
    values = [
        expression.subs(
            {
                symbol: _in_case(lengths[symbol], case) if symbol in lengths else size
                for symbol in expression.free_symbols
            }
        )
        for case, (size, _) in enumerate(_CASES)
    ]
    kind = {torch.SymInt: int, torch.SymBool: bool, torch.SymFloat: float}[type(symbolic)]
    return PerSize(tuple(map(kind, values)))


def _in_case(length: Length, case: int) -> int:
    """A size in one of `_CASES`."""
    return length.at(shorter(length)) if _CASES[case][1] else int(length)


def shorter(length: Length) -> int:
    """The other length that a constant is computed for."""
    return max(length.recorded // 2, 1) if length.recorded > 2 else 1


def evaluate(function: Callable, args: tuple, kwargs: dict) -> PerSize:
    """`function` in each case."""
    results = []
    for index in range(len(_CASES)):

        def choose(leaf, index=index):
            if isinstance(leaf, Length):
                return _in_case(leaf, index)
            return leaf.results[index] if isinstance(leaf, PerSize) else leaf

        own_args, own_kwargs = pytree.tree_map(choose, (args, kwargs), is_leaf=is_per_size)
        results.append(function(*own_args, **own_kwargs))
    return PerSize(tuple(results))


def shaped_like(node: Node) -> PerSize | Tensor:
    """What one of `OF_A_SHAPE` makes: a constant of the shape of its operand, whatever the values in that are.

    node: of an exported graph, on a value of the network.
    """
    like, lengths = node.args[0].meta["val"], lengths_of(node.graph)
    sizes = [per_size(size, lengths) if isinstance(size, torch.SymInt) else size for size in like.shape]
    rest, options = node.args[1:], dict(node.kwargs)

    def fill(*shape):
        return node.target(torch.empty(shape, dtype=like.dtype), *rest, **options)

    return evaluate(fill, tuple(sizes), {}) if any(map(follows, sizes)) else fill(*sizes)


def is_per_size(leaf) -> bool:
    """Whether a leaf of arguments is there once for each case."""
    return isinstance(leaf, PerSize)


def follows(leaf) -> bool:
    """Whether a leaf of arguments is another in every case."""
    return isinstance(leaf, PerSize | Length)


def collapsed(constant: PerSize):
    """The one constant that broadcasts to both, its batch dimension of size 1, of the recorded length.

    Where a dimension is merged into the batch, that dimension stands in the place of the batch.
    """
    first, second, third = constant.results
    if not isinstance(first, Tensor):
        return first if first == second == third else constant
    front = first[tuple(map(slice, third.shape))] if first.dim() == third.dim() else first
    if front.shape != third.shape or not torch.equal(front, third):
        raise Unlowerable(
            "it makes a constant that is another for shorter inputs, and not the front of the one for longer inputs"
        )
    if first.shape == second.shape and torch.equal(first, second):
        return first
    times, rest = divmod(len(first), SIZES[0]) if first.dim() == second.dim() > 0 else (0, 1)
    if rest or len(second) != times * SIZES[1] or not _repeats(first, second, times):
        raise Unlowerable(
            "it makes a constant that differs from sample to sample of the batch; use one that is the same"
        )
    return first[:times]


def collapse_tensors(arguments):
    """Arguments with every constant that is there once for each case as the one that broadcasts; numbers stay."""

    def collapse(leaf):
        return collapsed(leaf) if is_per_size(leaf) and isinstance(leaf.results[0], Tensor) else leaf

    return pytree.tree_map(collapse, arguments, is_leaf=is_per_size)


def _repeats(first: Tensor, second: Tensor, times: int) -> bool:
    """Whether both repeat the same `times` rows for every sample, as where a dimension is merged into the batch."""
    rows = first[:times]
    return all(
        torch.equal(tensor, rows.repeat(size, *[1] * (rows.dim() - 1)))
        for tensor, size in zip((first, second), SIZES, strict=True)
    )
