"""Integers of the network's inputs: token ids, positions, attention masks, and what is computed with them.

Such a tensor takes few values (`IndexRange`), so any function of it is a table, a mask as well.
"""

import math

import torch
from torch import Tensor
from torch.fx import Node

from qat.inject.operations import canonical_name
from qat.integer.geometry import broadcast_shape
from qat.integer.operations import MASK_GRID, CumulativeSum, IndexProduct, IndexSum, IndexTable
from qat.integer.program import Constant, Embedding, Expand, IndexRange, Mul, Multiplier, Reshape, Select, Table, Take
from qat.lowering.elementwise import rescale
from qat.lowering.index_ranges import range_of_choices, range_of_comparisons
from qat.lowering.movement import cut
from qat.lowering.picked import pick
from qat.lowering.pointwise import Mapped, table_builder
from qat.lowering.sizes import collapsed, is_per_size
from qat.lowering.state import (
    Masked,
    Pending,
    Program,
    Quantized,
    QuantizedConstant,
    Unlowerable,
    batch_shape,
    check_quantized,
    module_path,
)
from qat.lowering.weighted import weight_of

#: Functions of integers, or of masks, element by element.
_FUNCTIONS = frozenset("""
    eq ne lt le gt ge add sub rsub mul div neg clamp logical_not bitwise_not
    abs remainder floor_divide
""".split())  # fmt: skip
#: Functions of several integers or masks, where one decides about all of them.
_CHOICES = frozenset({"masked_fill", "where"})
#: What depends on the order of integers: it is made of the integers themselves, since a function may change it.
_ORDERED = frozenset("argmax argmin max min amax amin topk sort".split())
#: What has one number everywhere, of the shape of its operand.
_FILLED = frozenset({"zeros_like", "ones_like", "full_like"})
_CONVERSIONS = frozenset({"to", "_to_copy", "type_as", "bool", "float", "long", "int"})
_ARITHMETIC = {"add": IndexSum, "mul": IndexProduct}
_CONJUNCTIONS = frozenset({"and", "logical_and", "bitwise_and"})
_DISJUNCTIONS = frozenset({"or", "logical_or", "bitwise_or"})
#: Entries of a table of integers: several times the largest vocabularies, and a few MiB in a file.
LARGEST_TABLE = 2**20
#: What stands for values of the program while it is made.
_VALUES = Quantized | Pending | Masked | QuantizedConstant
_aten = torch.ops.aten


def index_range(node: Node, example: Tensor) -> IndexRange:
    """The integers that an input of the network takes: rows of the embedding it chooses from, or a mask's 0 and 1."""
    rows = list(_embedding_rows(node, set(), _is_moved))
    if rows:
        return IndexRange(min(rows))
    chosen = range_of_choices(node)
    if chosen is not None:
        return chosen
    if example.dtype == torch.bool or (example.numel() and int(example.min()) >= 0 and int(example.max()) <= 1):
        return IndexRange(2)
    rows = list(_embedding_rows(node, set(), _is_integer))
    if rows:
        return IndexRange(min(rows))
    compared = range_of_comparisons(node, example) if example.numel() else None
    if compared is not None:
        return compared
    raise Unlowerable(
        f"the input takes integers of {example.dtype} up to {int(example.max())} that choose no row of an embedding; "
        "give it as real numbers, or as a mask of 0 and 1"
    )


def _embedding_rows(node: Node, seen: set[Node], follows):
    """How many rows the embeddings have that are indexed by `node`, or by what `follows` says is made of it."""
    if node in seen:
        return
    seen.add(node)
    for user in node.users:
        if user.target is _aten.embedding.default and user.args[1] is node:
            yield int(user.args[0].meta["val"].shape[0])
        elif user.op == "call_function" and follows(user, node):
            yield from _embedding_rows(user, seen, follows)


def _is_integer(user: Node, node: Node) -> bool:
    """Whether the user of a node makes integers."""
    made = user.meta.get("val")
    return isinstance(made, Tensor) and not made.is_floating_point() and made.dtype != torch.bool


def _is_moved(user: Node, node: Node) -> bool:
    """Whether what the user of a node makes are the same integers, moved about."""
    first = user.args[0] if isinstance(user.args[0], list | tuple) else user.args[:1]
    computes = canonical_name(user.target.__name__.partition(".")[0]) in _FUNCTIONS | {"cumsum", "sum"}
    return _is_integer(user, node) and not computes and any(entry is node for entry in first)


def function_of_indices(program: Program, node: Node, name: str, args: tuple, kwargs: dict, move) -> Pending | None:
    """What a node makes of indices or masks; None where it is about something else.

    name: canonical name of its operation. move: the node's own rule, where it only moves values about.
    """
    sources = [argument for argument in args if is_discrete(argument)]
    if not sources:
        return None
    source = as_function(sources[0])
    if name == "gather" and isinstance(args[0], Tensor) and args[0].numel() == args[0].shape[args[1]]:
        return function_node(node, Mapped(source.root, args[0].flatten()[source.points]))
    if name in _CONJUNCTIONS and len(args) == 2:
        return both(program, node, *args)
    if name in _DISJUNCTIONS and len(args) == 2:
        return _either(program, node, *args)
    if name in _CONVERSIONS:
        return function_node(node, Mapped(source.root, source.points.to(node.meta["val"].dtype)))
    if name in _FILLED:
        dtype = node.meta["val"].dtype
        return function_node(node, Mapped(source.root, node.target(source.points, *args[1:], dtype=dtype)))
    alone = _FUNCTIONS if len(sources) == 1 else _CHOICES
    of_one = all(as_function(other).root.name == source.root.name for other in sources)
    if name in alone and of_one and all(map(_is_number, (a for a in args if not is_discrete(a)))):
        points = [_points_of(*pair) if is_discrete(pair[1]) else pair[1] for pair in zip(node.args, args, strict=False)]
        return function_node(node, Mapped(source.root, node.target(*points, **kwargs)))
    if name == "cumsum":
        counted = index_of(program, node, sources[0])
        return program.move(node, counted, batch_shape(node), CumulativeSum, dim=counted.dim(args[1]))
    if name == "sum":
        return _summed(program, node, index_of(program, node, sources[0]), args[1] if len(args) > 1 else ())
    of_several = len(args) == 2 and all(is_discrete(a) or (isinstance(a, Tensor) and a.numel() > 1) for a in args)
    if name in _ARITHMETIC and of_several and not node.meta["val"].is_floating_point():
        operands = [index_of(program, node, a) if is_discrete(a) else constant_indices(program, node, a) for a in args]
        return program.join(node, operands, batch_shape(node), _ARITHMETIC[name])
    if name in _ORDERED and move is not None and isinstance(args[0], Pending):
        return move(index_of(program, node, args[0]), *args[1:], **kwargs)
    chooses = any(isinstance(argument, Quantized | Pending | Masked) for argument in args[1:])  # between other values
    if move is not None and isinstance(args[0], Pending) and not chooses:
        moved = move(source.root, *args[1:], **kwargs)
        return function_node(node, Mapped(moved, source.points))
    return None


def _points_of(node: Node, argument: Quantized | Pending) -> Tensor:
    """The points of an operand in the type that the network's function takes: a mask among the inputs is of bools."""
    return as_function(argument).points.to(node.meta["val"].dtype)


def is_discrete(argument) -> bool:
    """Whether an argument is a tensor of indices, a mask, or a function of those."""
    if isinstance(argument, Pending):
        return argument.mapped is not None and is_discrete(argument.mapped.root)
    return isinstance(argument, Quantized) and (isinstance(argument.grid, IndexRange) or argument.grid == MASK_GRID)


def as_function(source: Quantized | Pending) -> Mapped:
    """Indices or a mask as a function of itself, or the function that it is."""
    if isinstance(source, Pending):
        return source.mapped
    if source.grid == MASK_GRID:
        return Mapped(source, torch.tensor([False, True]))
    if source.grid.count > LARGEST_TABLE:
        raise Unlowerable(
            f"it is a function of integers from 0 to {source.grid.quant_max}, a table of {source.grid.count} entries, "
            f"and tables have {LARGEST_TABLE} at most; compute with smaller integers"
        )
    return Mapped(source, torch.arange(source.grid.count))


def mask_of(program: Program, node: Node, source) -> Quantized:
    """A mask as a value of the program: codes 1 where it is True."""
    if isinstance(source, Quantized) and source.grid == MASK_GRID:
        return source
    mapped = as_function(source)
    codes = mapped.points.bool().to(torch.uint8)
    name = program.unique(f"{module_path(node) or 'network'}.mask")
    program.operations.append(
        Table(
            name=name, source=module_path(node), inputs=(mapped.root.name,), output=name, clamp_min=0, clamp_max=1,
            codes=codes,
        )
    )  # fmt: skip
    return program.value(name, mapped.root.shape, MASK_GRID, mapped.root.quantizer)


def index_of(program: Program, node: Node, source) -> Quantized:
    """A function of indices or of a mask, whose results are whole numbers from 0, as indices of the program."""
    if isinstance(source, Quantized) and isinstance(source.grid, IndexRange):
        return source
    mapped = as_function(source)
    points = mapped.points.to(torch.int64)
    if mapped.points.is_floating_point() or int(points.min()) < 0:
        raise Unlowerable("it counts with numbers that are negative or no whole ones")
    root, count = mapped.root, int(points.max()) + 1
    if root.grid == MASK_GRID:
        raise Unlowerable("it counts with a mask that is joined of several; count with the input")
    return program.move(node, root, root.shape, IndexTable, codes=points, count=count)


def constant_indices(program: Program, node: Node, indices: Tensor) -> Constant:
    """Integers from 0 on that a network computes with those among its inputs, of the rank of the result."""
    rank = len(batch_shape(node))
    if int(indices.min()) < 0:
        raise Unlowerable("it counts with negative constants; subtract them from what is larger")
    if indices.dim() > rank:
        if not bool((indices == indices[:1]).all()):
            raise Unlowerable("it computes with integers that differ within the batch; make them of the inputs")
        indices = indices[0]
    indices = indices.reshape((1,) * (rank - indices.dim()) + tuple(indices.shape))
    grid = IndexRange(int(indices.max()) + 1)
    return program.constant(f"{module_path(node) or 'network'}.indices", grid, indices.to(torch.int64))


def embedding(program: Program, node: Node, weight, ids, padding_idx=-1, scale_grad=False, sparse=False) -> Pending:
    """aten.embedding: rows of codes, then on the grid of the quantizer behind."""
    if not isinstance(weight, QuantizedConstant):
        raise Unlowerable("its weight is not quantized, or not a constant")
    if not is_discrete(ids):
        raise Unlowerable("it is indexed by what is no integer input of the network")
    rows = program.move(node, index_of(program, node, ids), batch_shape(node), Embedding, weight=weight_of(weight))
    return rescale(node, rows, 1.0)


def index(program: Program, node: Node, x, places):
    """aten.index.Tensor with constant places, one of which may be each sample of the batch, or entries of constants."""
    if isinstance(x, Tensor):
        return _entries(node, x, places)
    source = as_function(x).root if isinstance(x, Pending) else x
    check_quantized(source)
    chosen = [(dim, place) for dim, place in enumerate(places) if place is not None]
    if [dim for dim, _ in chosen] == [0, 1] and is_discrete(places[1]) and _is_every_sample(places[0]):
        return _with_points(node, x, pick(program, node, source, as_function(places[1])))
    shape = batch_shape(node)
    if chosen and chosen[0][0] == 0:
        if not _is_every_sample(chosen[0][1]):
            raise Unlowerable("it picks samples of the batch; pick from the other dimensions only")
        chosen = chosen[1:]
    chosen = [(dim, collapsed(place) if is_per_size(place) else place) for dim, place in chosen]
    first, count = (chosen[0][0] if chosen else 0), len(chosen)
    adjacent = [dim for dim, _ in chosen] == list(range(first, first + count))
    if not chosen or not adjacent or not all(isinstance(place, Tensor) for _, place in chosen):
        raise Unlowerable("it chooses along dimensions that are not next to each other; choose one after the other")
    dim = source.dim(first)
    sizes = source.shape[dim - 1 : dim - 1 + count]
    rest = source.shape[: dim - 1], source.shape[dim - 1 + count :]
    indices = _flat([place for _, place in chosen], sizes)
    flat = (*rest[0], math.prod(sizes), *rest[1])
    moved = source if count == 1 else program.move(node, source, flat, Reshape, shape=flat)
    if torch.equal(indices, torch.arange(flat[dim - 1])):  # every place in order, of any length
        taken = flat
    else:
        taken = (*rest[0], len(indices), *rest[1])
        moved = program.move(node, moved, taken, Take, dim=dim, indices=indices)
    if taken != shape:
        moved = program.move(node, moved, shape, Reshape, shape=shape)
    return _with_points(node, x, moved)


def _entries(node: Node, entries: Tensor, places) -> Pending:
    """Integers that a constant has for each integer among the inputs."""
    if entries.dim() != 1 or entries.is_floating_point() or len(places) != 1 or not is_discrete(places[0]):
        raise Unlowerable(
            "it chooses rows of a constant by integers among the inputs; choose them by "
            "torch.nn.functional.embedding(ids, table)"
        )
    source = as_function(places[0])
    points, count = source.points.to(torch.int64), len(entries)
    if source.points.dtype == torch.bool or int(points.max()) >= count or int(points.min()) < -count:
        raise Unlowerable(f"it chooses among {count} entries by integers of another range")
    return function_node(node, Mapped(source.root, entries[points]))


def _with_points(node: Node, x, moved: Quantized):
    """What was moved, as the same function of it that `x` is of its own root."""
    return function_node(node, Mapped(moved, x.mapped.points)) if isinstance(x, Pending) else moved


def _flat(places: list[Tensor], sizes: tuple[int, ...]) -> Tensor:
    """Places in dimensions of `sizes`, which broadcast, as places in those dimensions flattened, (n,)."""
    if places[0].dtype == torch.bool:
        return places[0].flatten().nonzero().flatten()
    flat = torch.zeros((), dtype=torch.int64)
    for place, size in zip(places, sizes, strict=True):
        flat = flat * size + place % size
    return flat.flatten()


def _is_every_sample(place) -> bool:
    """Whether a place among the indices is 0, 1, 2, ... for the samples of the batch."""
    results = getattr(place, "results", ())
    return bool(results) and all(torch.equal(result.flatten(), torch.arange(len(result))) for result in results)


def function_node(node: Node, mapped: Mapped) -> Pending:
    """A node that is a function of indices or of a mask."""
    return Pending(batch_shape(node), table_builder(node, mapped), mapped=mapped, is_table=True)


def _summed(program: Program, node: Node, x: Quantized, dims) -> Quantized:
    """The sum of indices along one dimension: the last entry of their cumulative sum."""
    if len(dims) != 1:
        raise Unlowerable("it adds up integers along several dimensions or all; add along one after the other")
    dim = x.dim(dims[0], "adds up")
    sums = program.move(node, x, x.shape, CumulativeSum, dim=dim)
    last = cut(program, node, sums, dim, -1)
    shape = batch_shape(node)
    return last if last.shape == shape else program.move(node, last, shape, Reshape, shape=shape)


def _is_number(argument) -> bool:
    """Whether an argument is a number, or a tensor of one, and so the same for every element."""
    return argument.numel() == 1 if isinstance(argument, Tensor) else not isinstance(argument, _VALUES)


def constant_mask(program: Program, node: Node, mask: Tensor, rank: int) -> Constant:
    """A mask that the network has of its own, of `rank` dimensions without the batch: codes 1 where it is True."""
    if mask.dim() > rank:
        if not bool((mask == mask[:1]).all()):
            raise Unlowerable(f"its mask of {tuple(mask.shape)} differs within the batch; make it of the inputs")
        mask = mask[0]
    codes = mask.to(torch.uint8).reshape((1,) * (rank - mask.dim()) + tuple(mask.shape))
    return program.constant(f"{module_path(node) or 'network'}.mask", MASK_GRID, codes)


def _either(program: Program, node: Node, first, second):
    """Where one of two masks is True: the first, and the second where the first is False."""
    if not is_discrete(first):
        first, second = second, first
    value, shape = mask_of(program, node, first), batch_shape(node)
    if isinstance(second, Tensor):
        other = constant_mask(program, node, second, len(shape))
    else:
        other = mask_of(program, node, second)
    return program.join(node, (value, value, other), shape, Select)


def both(program: Program, node: Node, first, second) -> Quantized:
    """Masks that are both True: the product of their codes. At least one depends on the inputs."""
    if not is_discrete(first):
        first, second = second, first
    value, shape = mask_of(program, node, first), batch_shape(node)
    if isinstance(second, Tensor):
        if bool(second.all()):
            return value if value.shape == shape else program.move(node, value, shape, Expand, shape=shape)
        other = constant_mask(program, node, second, len(shape))
    else:
        other = mask_of(program, node, second)
    name = program.unique(f"{module_path(node) or 'network'}.mask")
    program.operations.append(
        Mul(
            name=name, source=module_path(node), inputs=(value.name, other.name), output=name, clamp_min=0, clamp_max=1,
            multiplier=Multiplier.from_scales(1.0, 1.0, 1.0),
        )
    )  # fmt: skip
    joined = broadcast_shape(Unlowerable, value.shape, other.shape)
    # a constant does not know which of its sizes is a length; the node's own shape does
    joined = tuple(1 if size == 1 else known for size, known in zip(joined, shape, strict=True))
    return program.value(name, joined, MASK_GRID, value.quantizer)
