"""What one operation of the exported graph makes of what its arguments became: a constant, or a part of the program.

An operation on values may be part of something that several nodes write (`_STEPS`, which look at it in order); its own
rule comes last.
"""

import dataclasses
import functools

import torch
from torch.fx import Node
from torch.utils import _pytree as pytree

from qat.inject.operations import canonical_name
from qat.inject.remedies import remedy_for
from qat.lowering.chosen import Chosen, function_of_chosen
from qat.lowering.compared import compared, compares_several
from qat.lowering.folded import Constants, Folded, is_constant
from qat.lowering.indices import function_of_indices, is_discrete
from qat.lowering.pointwise import function_of_one_value
from qat.lowering.rules import RULES
from qat.lowering.sizes import OF_A_SHAPE, OF_A_TYPE, collapse_tensors, evaluate, follows, is_per_size, shaped_like
from qat.lowering.state import (
    Masked,
    Pending,
    Program,
    Quantized,
    QuantizedConstant,
    RealInput,
    Unlowerable,
    batch_position,
    merged_dims,
)
from qat.lowering.written_norms import MeanSquare, step_of_norm

aten = torch.ops.aten

_DROPOUTS = (aten.dropout.default, aten.feature_dropout.default, aten.alpha_dropout.default)
#: Operations that take indices as such, and are no functions of them.
_INDEXED = (aten.embedding.default, aten.index.Tensor)


def computed(program: Program, constants: Constants, node: Node, args: tuple, kwargs: dict):
    """What `node` makes: a value, a `Pending` computation, a part of a norm, or a constant.

    args, kwargs: what its arguments became. Raises `Unlowerable` where that has no integer form.
    """
    if node.target in OF_A_TYPE:
        args = (torch.empty((), dtype=node.args[0].meta["val"].dtype), *args[1:])
    leaves = pytree.tree_leaves((args, kwargs))
    if not any(_is_value(leaf) or isinstance(leaf, QuantizedConstant | Folded) for leaf in leaves):
        return _constant(node, args, kwargs)
    if node.target in OF_A_SHAPE and not is_discrete(args[0]):
        return shaped_like(node)
    if node.target is not aten.index.Tensor:  # whose places may be another for each sample of the batch
        args, kwargs = collapse_tensors((args, kwargs))
    if any(map(is_constant, leaves)) and not any(map(_is_value, leaves)):
        args, kwargs = constants.entered(node, args, kwargs)
        return constants.left(_by_itself(constants.program, node, args, kwargs))
    made = (step(program, node, args, kwargs) for step in _STEPS)
    return next(result for result in made if result is not None)


def name_of(node: Node) -> str:
    """The name of a node's operation, without its overload."""
    return node.target.__name__.partition(".")[0]


def _constant(node: Node, args: tuple, kwargs: dict):
    """What a node computes from constants alone."""
    if node.target in _DROPOUTS and not args[2]:
        return args[0]
    if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
        raise Unlowerable("it draws random numbers; draw them outside of the network")
    if any(map(follows, pytree.tree_leaves((args, kwargs), is_leaf=is_per_size))):
        return evaluate(node.target, args, kwargs)
    return node.target(*args, **kwargs)


def _of_chosen(program: Program, node: Node, args: tuple, kwargs: dict):
    """A function of constants that a mask chose between."""
    if not any(isinstance(argument, Chosen) for argument in args):
        return None
    made = function_of_chosen(node, canonical_name(name_of(node)), args)
    if made is None:
        raise Unlowerable("it computes with constants that a mask of the inputs chose between")
    return made


def _of_norm(program: Program, node: Node, args: tuple, kwargs: dict):
    """A step of a norm that the network writes out."""
    return step_of_norm(node, canonical_name(name_of(node)), args, kwargs)


def _of_indices(program: Program, node: Node, args: tuple, kwargs: dict):
    """A function of indices or masks."""
    if node.target in _INDEXED:
        return None
    rule = RULES.get(node.target)
    move = rule and functools.partial(rule, program, node)
    return function_of_indices(program, node, canonical_name(name_of(node)), args, kwargs, move)


def _of_comparison(program: Program, node: Node, args: tuple, kwargs: dict):
    """Integers among the inputs compared with several others."""
    name = canonical_name(name_of(node))
    return compared(program, node, name, *args) if compares_several(name, args) else None


def _of_values(program: Program, node: Node, args: tuple, kwargs: dict):
    """What the node makes by itself, with the layout that the network has there."""
    made = _by_itself(program, node, args, kwargs)
    return pytree.tree_map(lambda leaf: _with_layout(leaf, node), made, is_leaf=_is_of_program)


#: Each gives what it makes of a node on values, or None where the node is no such thing; the last one always makes it.
_STEPS = (_of_chosen, _of_norm, _of_comparison, _of_indices, _of_values)


def _by_itself(program: Program, node: Node, args: tuple, kwargs: dict):
    """The node as a table, where it is a function of one value, or as its own rule has it."""
    rule = RULES.get(node.target)
    own = rule and functools.partial(rule, program, node, *args, **kwargs)
    table = function_of_one_value(node, canonical_name(name_of(node)), args, kwargs, own)
    if table is not None:
        return table
    if own is None:
        raise Unlowerable(remedy_for(name_of(node)))
    return own()


def _is_value(leaf) -> bool:
    """Whether a leaf of arguments depends on the inputs of the network."""
    return isinstance(leaf, Quantized | Pending | Masked | MeanSquare | Chosen | RealInput)


def _is_of_program(leaf) -> bool:
    return isinstance(leaf, Quantized | Pending)


def _with_layout(leaf, node: Node):
    """`leaf`, knowing where the network has the batch, and whether its first dimension is merged into that."""
    if not _is_of_program(leaf):
        return leaf
    made = node.meta["val"]
    made = made[0] if isinstance(made, tuple | list) else made
    layout = {"merged": merged_dims(node, made), "batch_at": batch_position(node, made)}
    return leaf if layout == {name: getattr(leaf, name) for name in layout} else dataclasses.replace(leaf, **layout)
