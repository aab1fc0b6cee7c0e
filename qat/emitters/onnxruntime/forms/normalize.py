"""Normalization as integer nodes.

Nine elementwise passes in int32 where values have 29 bits (`NormalizeFactors`), else in int64. What is computed once a
row, the root with its Newton steps among it, is int64: 30 small nodes.
"""

import numpy

from qat.emitters.onnxruntime.arithmetic import Arithmetic
from qat.emitters.onnxruntime.graph import array_of
from qat.emitters.onnxruntime.writer import Writer, tensor_of
from qat.integer.kernels.normalize import ROOT_ESTIMATES, ROOT_STEPS
from qat.integer.operations import Normalize
from qat.integer.operations.normalize import is_narrow, normalized_bits
from qat.integer.values import Grid

#: What stays inside the type of the elementwise passes; below the end of int64, as float64 numbers are compared.
_ROOM = {numpy.int32: 2**31 - 1, numpy.int64: 2**62}
#: Elements of a row from which its square is a product of two vectors: of 256 that takes half as long as a
#: ReduceSumSquare, of 64 squares and a product with ones are faster.
_FEWEST_FOR_PRODUCT = 192


def normalize(writer: Writer, operation: Normalize) -> None:
    """`kernels.normalize`."""
    factors, source = operation.factors, writer.grid(operation.inputs[0])
    shape = writer.shape(operation.inputs[0])
    count = operation.row_size(shape)
    narrow = is_narrow(source, writer.grid(operation.output), count)
    nodes = Arithmetic(writer, operation, numpy.int32 if narrow else numpy.int64)
    at_end = operation.dims == (len(shape),)
    tensor = tensor_of(operation.inputs[0])
    codes, rest = nodes.cast(tensor, nodes.dtype), None
    if operation.centered:
        total = _total(nodes, tensor, codes, count, operation.dims, at_end)
        mean = nodes.of_rows("Div", total, count, nodes.dtype)
        rest = nodes.cast(nodes.of_rows("Mod", total, count, nodes.dtype), numpy.int64)
        values = nodes.node("Sub", codes, mean)
    else:
        values = nodes.apply("Sub", codes, source.zero_point + source.unsigned_offset)
    square = _square(nodes, values, source, count, factors.count, operation.dims)
    if rest is not None:
        square = nodes.node("Sub", square, nodes.node("Mul", rest, rest))
    square = nodes.of_rows("Mul", square, 1 << 2 * factors.root_shift)
    if factors.epsilon and not operation.l2:
        square = nodes.of_rows("Add", square, factors.epsilon)
    else:
        square = nodes.of_rows("Max", square, max(factors.epsilon, 1))
    largest = factors.count * count * (source.quant_max - source.quant_min) ** 2 << 2 * factors.root_shift
    root = _root(nodes, square, max(factors.epsilon, 1), largest + factors.epsilon, at_end)
    slope = nodes.cast(nodes.of_rows("Div", factors.count << factors.quotient_shift, root), nodes.dtype)
    steps = nodes.node("Mul", values, slope)
    if rest is not None:
        lift = nodes.node("Div", nodes.of_rows("Mul", rest, 1 << factors.quotient_shift), root)
        steps = nodes.node("Sub", steps, nodes.cast(lift, nodes.dtype))
    limit = 1 << normalized_bits(source, writer.grid(operation.output), count)
    offsets, bases = _counted(writer, operation, nodes.dtype, limit)
    steps = nodes.apply("Div", nodes.apply("Add", steps, offsets), array_of(factors.divisors))
    nodes.finish_counted(steps if bases is None else nodes.apply("Add", steps, bases))


def _counted(
    writer: Writer, operation: Normalize, dtype: type, limit: int
) -> tuple[numpy.ndarray, numpy.ndarray | None]:
    """Offsets before a division and bases behind it that give what the output's tensor holds.

    limit: of what is divided, without an offset. Bases are part of the offsets, as whole divisors, where that stays
    inside `dtype`: no bases then. Quotients below 0 are rounded up then, but they are clamped to 0 or above anyway.
    """
    factors, grid = operation.factors, writer.grid(operation.output)
    divisors, offsets = array_of(factors.divisors), array_of(factors.offsets)
    bases = array_of(factors.bases) + grid.zero_point + grid.unsigned_offset
    reached = offsets + bases.astype(numpy.float64) * divisors
    if numpy.abs(reached).max() + limit > _ROOM[dtype]:
        return offsets, bases
    return offsets + bases * divisors, None


def _total(nodes: Arithmetic, narrow: str, codes: str, count: int, dims: tuple[int, ...], at_end: bool) -> str:
    """Sums of codes over `dims`. narrow: the tensor of `codes` as it was.

    Over the last dimension a product with ones is five times as fast: 0.02 ms for [1, 197, 768] codes.
    """
    if not at_end or nodes.dtype != numpy.int32:
        return nodes.reduce("ReduceSum", codes, dims)
    return nodes.node("MatMulInteger", narrow, nodes.constant(numpy.ones((count, 1)), numpy.int8))


def _square(nodes: Arithmetic, values: str, source: Grid, count: int, times: int, dims: tuple[int, ...]) -> str:
    """Sums of squares over `dims`, `times` what they are, int64; int32 holds sums as far as `MOST_NARROW` goes."""
    if dims != (nodes.rank - 1,):
        square = nodes.reduce("ReduceSumSquare", values, dims)
    elif count < _FEWEST_FOR_PRODUCT:
        fits = times * count * (source.quant_max - source.quant_min) ** 2 <= _ROOM[nodes.dtype]
        square = nodes.weigh_last(nodes.node("Mul", values, values), [times if fits else 1] * count, nodes.dtype)
        times = 1 if fits else times
    else:
        row, column = (nodes.constant(numpy.array([place]), numpy.int64) for place in (-2, -1))
        square = nodes.node("MatMul", nodes.node("Unsqueeze", values, row), nodes.node("Unsqueeze", values, column))
        square = nodes.node("Squeeze", square, row)
    square = square if nodes.dtype == numpy.int64 else nodes.cast(square, numpy.int64)
    return nodes.of_rows("Mul", square, times) if times > 1 else square


def _root(nodes: Arithmetic, numbers: str, lowest: int, highest: int, at_end: bool) -> str:
    """`kernels.integer_root` of int64 numbers of lowest..highest, at least 1, one a row."""
    # The number of binary digits, halved and rounded up, is one more than that of the powers of 4 behind 1 it reaches.
    steps = {4 ** (place - 1): ROOT_ESTIMATES[place] for place in range(1, len(ROOT_ESTIMATES))}
    first = max(power for power in steps if power <= lowest)
    root = nodes.step_up(numbers, {power: steps[power] for power in steps if first <= power <= highest}, at_end)
    for _ in range(ROOT_STEPS):
        root = nodes.of_rows("Div", nodes.node("Add", root, nodes.node("Div", numbers, root)), 2)
    return root
