"""Sizes of an exported graph: the batch, a symbol that the program does not show, and what follows a length."""

import dataclasses
from collections.abc import Mapping

import sympy
import torch
from torch.fx import Graph, Node
from torch.utils._sympy.functions import FloorDiv

from qat.integer.lengths import Length, LengthRange
from qat.integer.operations import Concatenate, MatMul, Operation
from qat.integer.values import Constant, Value

#: Key of the exported graph's `meta`: its lengths, by symbol of sympy.
LENGTHS = "qat_lengths"
#: Longest inputs where nothing of a program ends before: far beyond what anybody waits for.
UNBOUNDED = 2**15


class NoLength(Exception):
    """A size is no such expression of one length; the message says which."""


def lengths_of(graph: Graph) -> Mapping[sympy.Symbol, Length]:
    """The lengths of an exported graph, by the symbols of its shapes; none where it is of one length."""
    return graph.owning_module.meta.get(LENGTHS, {})


def length_of(expression: sympy.Expr, lengths: Mapping[sympy.Symbol, Length]) -> int:
    """A number, or a `Length`, of an expression of lengths alone. Raises `NoLength`."""
    if expression.is_Integer:
        return int(expression)
    if expression in lengths:
        return lengths[expression]
    parts = [length_of(part, lengths) for part in expression.args]
    if isinstance(expression, sympy.Add):
        result = sum(parts)
    elif isinstance(expression, sympy.Mul):
        result = 1
        for part in parts:
            result = result * part
    elif isinstance(expression, FloorDiv):
        result = parts[0] // parts[1]
    else:
        raise NoLength(f"a size is {expression}, which is no multiple of one length")
    if expression.free_symbols and not isinstance(result, Length):
        raise NoLength(f"a size is {expression}, which is no multiple of one length")
    return result


def batch_symbols(size, lengths: Mapping[sympy.Symbol, Length]) -> set[sympy.Symbol]:
    """The symbols of the batch in a size; none in a number, and in what follows lengths alone."""
    return set() if isinstance(size, int) else size.node.expr.free_symbols - set(lengths)


def sizes_of(node: Node, shape: torch.Size) -> tuple:
    """A shape of the exported graph with a `Length` for what follows one; what has the batch in it stays symbolic.

    So does a batch in front that a node further on fixes.
    """
    lengths = lengths_of(node.graph)
    return tuple(
        size
        if isinstance(size, int) or batch_symbols(size, lengths) or (not dim and size.node.expr.is_Integer)
        else length_of(size.node.expr, lengths)
        for dim, size in enumerate(shape)
    )


def beside_batch(size, lengths: Mapping[sympy.Symbol, Length]) -> int | None:
    """What a dimension has besides the batch, 1 for the batch alone; None where the batch is no factor of it."""
    batch, others = [], []
    for factor in sympy.Mul.make_args(size.node.expr):
        (others if factor.free_symbols <= set(lengths) else batch).append(factor)
    if len(batch) != 1 or not batch[0].is_Symbol:
        return None
    return length_of(sympy.Mul(*others), lengths)


def sized(
    constants: list[Constant], operations: list[Operation], known: Mapping[str, Value | Constant]
) -> list[Constant]:
    """The constants, of which those that meet a size that follows a length follow it, too."""
    sizes: dict[str, tuple[int, ...]] = {}
    names = {constant.name for constant in constants}
    for operation in operations:
        for place, name in enumerate(operation.inputs):
            if name in names and name not in sizes:
                found = _met(operation, place, known)
                if any(isinstance(size, Length) for size in found):
                    sizes[name] = found
    return [
        dataclasses.replace(constant, sizes=sizes[constant.name]) if constant.name in sizes else constant
        for constant in constants
    ]


def _met(operation: Operation, place: int, known: Mapping[str, Value | Constant]) -> tuple[int, ...]:
    """The shape of the constant among the operands at `place`, with each size that of what it meets."""
    own, output = known[operation.inputs[place]].shape, known[operation.output].shape
    if len(own) != len(output):
        return own
    beside = list(output)
    if isinstance(operation, MatMul):
        other = known[operation.inputs[1 - place]].shape
        if place == 0:  # (..., M, K) @ (..., K, N)
            beside[-1] = other[-2]
        else:
            beside[-2] = other[-1]
    if isinstance(operation, Concatenate):
        beside[operation.dim - 1] = own[operation.dim - 1]
    return tuple(
        met if isinstance(met, Length) and met == size and size != 1 else size
        for size, met in zip(own, beside, strict=True)
    )


def ranges(lengths: Mapping[sympy.Symbol, Length], constraints, longest: int) -> tuple[LengthRange, ...]:
    """What lengths the inputs may have. constraints: the ranges of the exported graph. longest: at most that."""
    found = []
    for symbol, length in lengths.items():
        bounds = constraints.get(symbol)
        least = 1 if bounds is None or bounds.lower <= 2 else int(bounds.lower)  # torch.export tells 1 from all others
        most = longest if bounds is None or bounds.upper > longest else int(bounds.upper)
        found.append(LengthRange(length.symbol, least, int(length), max(most, int(length))))
    return tuple(found)
