"""Which integers an input may hold, told by what the network does with them: entries that they choose, comparisons."""

import torch
from torch import Tensor
from torch.fx import Node
from torch.utils import _pytree as pytree

from qat.inject.operations import canonical_name
from qat.integer.lengths import Length
from qat.integer.program import IndexRange
from qat.lowering.lengths import sizes_of

#: Integers that are tried: more than any dimension has entries to choose from.
_TRIED = 2**16
_OF_EACH = frozenset("add sub rsub mul neg clamp clamp_min clamp_max abs floor_divide remainder".split())
_MOVING = frozenset("""
    unsqueeze squeeze view reshape expand expand_as transpose permute flatten to _to_copy clone contiguous detach alias
    slice select repeat
""".split())  # fmt: skip
#: Of integers among the inputs and several others (`qat.lowering.compared`).
COMPARISONS = frozenset({"eq", "ne", "lt", "le", "gt", "ge"})
_aten = torch.ops.aten


def range_of_choices(node: Node) -> IndexRange | None:
    """The integers that choose entries which are there; None where `node` chooses none."""
    counts = [count for count, chooses in _counts(node, torch.arange(_TRIED), set()) if chooses]
    return IndexRange(min(counts)) if counts and min(counts) else None


def range_of_comparisons(node: Node, example: Tensor) -> IndexRange | None:
    """The integers of an example, and one more than anything compared has places; None where `node` is not compared."""
    counts = [count for count, chooses in _counts(node, torch.arange(_TRIED), set()) if not chooses]
    return IndexRange(max(*counts, int(example.max()) + 1, 1)) if counts and int(example.min()) >= 0 else None


def _counts(node: Node, results: Tensor, seen: set[Node]):
    """(how many integers from 0 on are possible, whether they choose entries) for every use of `node`.

    results: what `node` is for each of the integers tried.
    """
    if node in seen:
        return
    seen.add(node)
    for user in node.users:
        if user.op != "call_function":
            continue
        name = canonical_name(user.target.__name__.partition(".")[0])
        size = _chosen_from(user, node)
        if size is not None:
            count, fewer = (_count_inside(results, int(size) - one) for one in (0, 1))
            # one more for each entry follows the length; what is bounded otherwise does not
            follows = isinstance(size, Length) and count == fewer + 1
            yield size + (count - int(size)) if follows else count, True
        elif name in COMPARISONS and len(_nodes(user)) == 2:
            yield max(map(int, sizes_of(user, user.meta["val"].shape)[1:]), default=1) + 1, False
        elif name in _MOVING and user.args[0] is node:
            yield from _counts(user, results, seen)
        elif name in _OF_EACH and not any(leaf is not node for leaf in _nodes(user)):
            arguments = pytree.tree_map(lambda leaf: results if leaf is node else leaf, (user.args, user.kwargs))
            yield from _counts(user, user.target(*arguments[0], **arguments[1]), seen)


def _count_inside(results: Tensor, size: int) -> int:
    """How many of `results`, from the first on, are among `size` entries, counted from either end."""
    inside = (results >= -size) & (results < size)
    return int(inside.long().cumprod(0).sum())


def _nodes(user: Node) -> list[Node]:
    return [leaf for leaf in pytree.tree_leaves((user.args, user.kwargs)) if isinstance(leaf, Node)]


def _chosen_from(user: Node, node: Node) -> int | None:
    """How many entries a node has of which `node` chooses; None where it chooses none."""
    if user.target is _aten.gather.default and user.args[2] is node:
        source, dim = user.args[0], user.args[1]
    elif user.target is _aten.index.Tensor and node in user.args[1]:
        source, dim = user.args[0], user.args[1].index(node)
    else:
        return None
    made = source.meta["val"]
    size = sizes_of(user, made.shape)[dim % made.dim()]
    return size if isinstance(size, int) else None
