"""Functions of one value, element by element: one table, however many nodes of the graph it takes to write them."""

import dataclasses
import functools
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Node
from torch.utils import _pytree as pytree

from qat.inject.pointwise import NONLINEAR, PLAIN, evaluate
from qat.inject.tables import grid_points, in_shape
from qat.integer.program import Table, table_codes
from qat.lowering.sizes import follows
from qat.lowering.state import Pending, Quantized, QuantizedConstant, Unlowerable, batch_shape, module_path


@dataclass(frozen=True)
class Mapped:
    """A function of one value of the program. points: its results for every code, float64 (n,) or (C, n)."""

    root: Quantized
    points: Tensor


def function_of_one_value(node: Node, name: str, args: tuple, kwargs: dict, rule) -> Pending | None:
    """The node as a table, or as `rule` makes it where that is as good; None where it is no function of one value.

    name: canonical name of the node's operation. rule: makes the node by itself, None where nothing does.
    """
    if name not in NONLINEAR and name not in PLAIN:
        return None
    leaves = pytree.tree_leaves((args, kwargs))
    sources = [leaf for leaf in leaves if isinstance(leaf, Quantized | Pending)]
    functions = [_function_of(source) for source in sources]
    if not functions or None in functions or any(isinstance(leaf, QuantizedConstant) for leaf in leaves):
        return None
    if any(map(follows, leaves)):
        raise Unlowerable(
            "it computes with a number that follows the length of an input or the size of the batch, and a table has "
            "entries for one; use a number that is always the same"
        )
    root = functions[0].root
    constants = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    if any((function.root.name, function.root.batch_at) != (root.name, root.batch_at) for function in functions):
        return None
    if name != "prelu" and any(constant.numel() != 1 for constant in constants):
        return None
    mapped = Mapped(root, _points_of(node, name, functions, args, kwargs))
    if name in PLAIN and rule is not None and len(sources) == 1 and not constants and _runs_by_itself(sources[0], name):
        return dataclasses.replace(_alone(node, rule), mapped=mapped)
    batch_at = root.batch_at if mapped.points.dim() == 1 else 0  # channels are the program's dimension 1
    return Pending(batch_shape(node, batch_at=batch_at), table_builder(node, mapped), mapped=mapped, is_table=True)


def _runs_by_itself(source, name: str) -> bool:
    """Whether a plain operation on `source` needs no table: it reads codes, or clamps what one kernel makes of them."""
    return isinstance(source, Quantized) or (not source.is_table and name not in ("add", "sub", "mul", "div"))


def _alone(node: Node, rule) -> Pending:
    """The node as its rule makes it; where nothing does, that is told only if the node has to be made by itself."""
    try:
        return rule()
    except Unlowerable as problem:
        if any(user.target is torch.ops.qat.fake_quantize.default for user in node.users):
            raise
        return Pending(batch_shape(node), functools.partial(_refuse, problem))


def _refuse(problem: Unlowerable, *_) -> None:
    raise problem


def _function_of(source) -> Mapped | None:
    if isinstance(source, Quantized):
        return Mapped(source, grid_points(source.grid)) if hasattr(source.grid, "scale") else None
    return source.mapped


def _points_of(node: Node, name: str, functions: list[Mapped], args: tuple, kwargs: dict) -> Tensor:
    shape = max((function.points.shape for function in functions), key=len)

    def substitute(leaf):
        return _function_of(leaf).points if isinstance(leaf, Quantized | Pending) else leaf

    args, kwargs = pytree.tree_map(
        substitute, (args, kwargs), is_leaf=lambda leaf: isinstance(leaf, Quantized | Pending)
    )
    with torch.no_grad():
        return in_shape(evaluate(name, node.target, args, kwargs), shape)


def table_builder(node: Node, mapped: Mapped):
    """Makes the table of a function, once its output grid is known."""

    def build(name, output, grid, clamp_min, clamp_max):
        if bool(mapped.points.isnan().any()):
            raise Unlowerable(
                f"it is not a number for some of the values {mapped.root.quantizer} can have; clamp them to where it is"
            )
        return Table(
            name=name, source=module_path(node), inputs=(mapped.root.name,), output=output, clamp_min=clamp_min,
            clamp_max=clamp_max, codes=table_codes(mapped.points.double(), grid, clamp_min, clamp_max),
        )  # fmt: skip

    return build
