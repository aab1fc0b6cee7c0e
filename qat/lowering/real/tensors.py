"""Nodes that convert, reshape, fill or cut tensors."""

from torch.fx import Node

from qat.lowering.real.builder import Builder
from qat.lowering.real.operands import arguments_of, dtype_of, shape_of


def same(builder: Builder, node: Node, args: tuple, kwargs: dict):
    """The operand itself: a copy of it."""
    return args[0]


def cast(builder: Builder, node: Node, args: tuple, kwargs: dict):
    """Nothing where the type stays, as among the types of real numbers."""
    source = node.args[0].meta["val"]
    if dtype_of(source) == dtype_of(node.meta["val"]):
        return args[0]
    return builder.add(node, "cast", {"input": args[0], "dtype": dtype_of(node.meta["val"])})


def reshape(builder: Builder, node: Node, args: tuple, kwargs: dict):
    """A size that stays where it is becomes 0, and one other that follows the inputs -1."""
    before, after = shape_of(node.args[0].meta["val"]), shape_of(node.meta["val"])
    if before == after:
        return args[0]
    sizes = [
        size if isinstance(size, int) else 0 if dim < len(before) and before[dim] == size else None
        for dim, size in enumerate(after)
    ]
    if sizes.count(None) == 1:
        sizes[sizes.index(None)] = -1
    sizes = [args[1][dim] if size is None else size for dim, size in enumerate(sizes)]
    return builder.add(node, "reshape", {"input": args[0], "sizes": tuple(sizes)})


def expand(builder: Builder, node: Node, args: tuple, kwargs: dict):
    """Nothing where the shape stays."""
    before, after = shape_of(node.args[0].meta["val"]), shape_of(node.meta["val"])
    return args[0] if before == after else builder.add(node, "expand", {"input": args[0], "sizes": tuple(args[1])})


def arange(builder: Builder, node: Node, args: tuple, kwargs: dict):
    """Whole numbers from `start` to `end`."""
    given = arguments_of(node, args, {key: value for key, value in kwargs.items() if key != "dtype"})
    arguments = {"start": given.get("start", 0), "end": given["end"], "step": given.get("step", 1)}
    return builder.add(node, "arange", arguments | {"dtype": dtype_of(node.meta["val"])})


def full(builder: Builder, node: Node, args: tuple, kwargs: dict):
    """One number, in the type of the result."""
    dtype = dtype_of(node.meta["val"])
    value = bool(args[1]) if dtype == "bool" else float(args[1]) if dtype == "float32" else int(args[1])
    return builder.add(node, "full", {"sizes": tuple(args[0]), "value": value, "dtype": dtype})


def full_like(builder: Builder, node: Node, args: tuple, kwargs: dict):
    """As `full`; sizes that follow the inputs are those of the operand."""
    source = args[0]
    sizes = [
        size if isinstance(size, int) else builder.add(node, "size", {"input": source, "dim": dim}, dtype="size")
        for dim, size in enumerate(shape_of(node.meta["val"]))
    ]
    return full(builder, node, (sizes, args[1]), {})


def cut(builder: Builder, node: Node, args: tuple, kwargs: dict):
    """A slice; nothing where it is the whole."""
    given = arguments_of(node, args, kwargs)
    start, end = given["start"], given["end"]
    whole = start in (None, 0) and (end is None or (isinstance(end, int) and end >= 2**62)) and given["step"] == 1
    return given["self"] if whole else builder.plain(node, args, kwargs)


def index(builder: Builder, node: Node, args: tuple, kwargs: dict):
    """Entries by tensors of places."""
    return builder.add(node, "index", {"input": args[0], "indices": tuple(args[1])})
