"""Sizes of an exported graph: the batch, a symbol that the program does not show, and what follows a length."""

import contextlib
import dataclasses
from collections.abc import Mapping

import sympy
import torch
from torch.fx import Graph, Node
from torch.utils._sympy.functions import FloorDiv

from qat.errors import ProgramError
from qat.integer.lengths import Length, LengthRange
from qat.integer.operations import Concatenate, MatMul, Mean, Operation
from qat.integer.program import IntegerProgram
from qat.integer.values import Constant, Value

#: Key of the exported graph's `meta`: its lengths, by symbol of sympy.
LENGTHS = "qat_lengths"
#: Longest inputs where nothing of a program ends before: far beyond what anybody waits for.
UNBOUNDED = 2**15
#: How many more than the shortest length of the graph an operation may need, tried first.
_FEW = (1, 2, 3)


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

    So does a batch in front that a node further on fixes, if the shape has no other.
    """
    lengths = lengths_of(node.graph)
    has_batch = any(batch_symbols(size, lengths) for size in shape)
    return tuple(
        size
        if isinstance(size, int)
        or batch_symbols(size, lengths)
        or (not dim and not has_batch and size.node.expr.is_Integer)
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


def recorded_only(length: Length) -> LengthRange:
    """The range of a program that has not been tried at other lengths."""
    return LengthRange(length.symbol, length.recorded, length.recorded, length.recorded)


def bounds_of(lengths: Mapping[sympy.Symbol, Length], constraints: Mapping) -> dict[str, tuple[int, int]]:
    """(shortest, longest) that the exported graph allows, by symbol. constraints: the graph's ranges."""
    found = {}
    for symbol, length in lengths.items():
        bounds = constraints.get(symbol)
        least = 1 if bounds is None or bounds.lower <= 2 else int(bounds.lower)  # torch.export tells 1 from all others
        most = UNBOUNDED if bounds is None or bounds.upper > UNBOUNDED else int(bounds.upper)
        found[length.symbol] = least, max(most, length.recorded)
    return found


def widened(program: IntegerProgram, bounds: Mapping[str, tuple[int, int]]) -> IntegerProgram:
    """The program for as many lengths as it holds together at, within `bounds`. Raises `ProgramError` for none."""
    # what is taken from the front of a constant, or looked up in a table of lengths, ends at the recorded one
    ends = any(constant.sizes for constant in program.constants)
    ends = ends or any(isinstance(operation, Mean) for operation in program.operations)
    for symbol, (least, most) in bounds.items():
        program = _with_shortest(program, symbol, least)
        if not ends:
            program = _with_longest(program, symbol, most)
    return program


def _with_shortest(program: IntegerProgram, symbol: str, least: int) -> IntegerProgram:
    """The program for lengths from `least` on, or from a few more where an operation needs them."""
    (recorded,) = (entry.recorded for entry in program.lengths if entry.symbol == symbol)
    problem = None
    for shortest in sorted({least, *(least + count for count in _FEW), *(least + 2**power for power in range(2, 15))}):
        if shortest < recorded:
            try:
                return _with_range(program, symbol, shortest=shortest)
            except ProgramError as error:
                problem = problem or error
    if problem is not None:
        raise problem
    return program


def _with_longest(program: IntegerProgram, symbol: str, most: int) -> IntegerProgram:
    """The program for lengths up to `most`, or up to the largest 2^n - 1 at which nothing overflows."""
    (recorded,) = (entry.recorded for entry in program.lengths if entry.symbol == symbol)
    for longest in (most, *(2**power - 1 for power in range(most.bit_length() - 1, 0, -1))):
        if longest > recorded:
            with contextlib.suppress(ProgramError):
                return _with_range(program, symbol, longest=longest)
    return program


def _with_range(program: IntegerProgram, symbol: str, **ends: int) -> IntegerProgram:
    lengths = tuple(
        dataclasses.replace(entry, **ends) if entry.symbol == symbol else entry for entry in program.lengths
    )
    return dataclasses.replace(program, lengths=lengths)
