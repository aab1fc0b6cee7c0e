"""Softmax and its logarithm as integer nodes.

Elementwise passes are int32, and what is computed once a row int64 (`python tests/benchmarks/bench_nonlinear.py`).
"""

import numpy

from qat.emitters.onnxruntime.arithmetic import Arithmetic
from qat.emitters.onnxruntime.graph import array_of
from qat.emitters.onnxruntime.writer import Writer, tensor_of
from qat.integer.kernels.softmax import LOG_OF_TWO, log_table
from qat.integer.lengths import Length
from qat.integer.operations import LogSoftmax, Softmax
from qat.integer.operations.softmax import LOG_BITS, LOG_TABLE_BITS

INT32_MAX = 2**31 - 1
#: Codes of a uint8 tensor.
_PLACES = 256


def softmax(writer: Writer, operation: Softmax) -> None:
    """A table of exponentials, their sum, and one division: `kernels.softmax`."""
    factors, nodes = operation.factors, Arithmetic(writer, operation, numpy.int32)
    exponentials, sums = _exponentials(writer, operation, nodes)
    if factors.sum_shift:
        sums = nodes.of_rows("Div", sums, 1 << factors.sum_shift)
    products = nodes.of_rows("Mul", sums, factors.divisor_factor)
    divisors = nodes.of_rows("Div", nodes.of_rows("Add", products, factors.half), 1 << factors.divisor_shift)
    limits = [nodes.constant(limit, numpy.int64) for limit in (1, factors.divisor_limit)]
    divisors = nodes.cast(nodes.node("Clip", divisors, *limits), numpy.int32)
    numerators = exponentials
    if factors.numerator_shift:
        numerators = nodes.apply("Mul", exponentials, 1 << factors.numerator_shift)
    numerators = nodes.node("Add", numerators, nodes.of_rows("Div", divisors, 2, numpy.int32))
    nodes.finish(nodes.node("Div", numerators, divisors), (0, factors.largest_step))


def log_softmax(writer: Writer, operation: LogSoftmax) -> None:
    """Distances to the largest code, plus the logarithm of a sum of exponentials: `kernels.log_softmax`."""
    factors, nodes = operation.factors, Arithmetic(writer, operation, numpy.int32)
    _, sums = _exponentials(writer, operation, nodes)
    shape = writer.shape(operation.inputs[0])
    digits = writer.graph.longest(shape[operation.dim - 1]).bit_length()
    bits = int(factors.exponentials[0]).bit_length() - 1
    logs = _log(nodes, sums, bits, digits, operation.dim == len(shape))
    scaled = nodes.of_rows("Add", nodes.of_rows("Mul", logs, factors.log_factor), (1 << factors.log_shift) >> 1)
    scaled = nodes.of_rows("Div", scaled, 1 << factors.log_shift)
    scaled = nodes.cast(nodes.of_rows("Add", scaled, (1 << factors.shift) >> 1), numpy.int32)
    distances = _distances(operation, nodes, tensor_of(operation.inputs[0]))
    steps = nodes.apply("Add", nodes.apply("Mul", distances, factors.distance_factor), scaled)
    nodes.finish(nodes.apply("Div", steps, -(1 << factors.shift)))


def _distances(operation: Softmax | LogSoftmax, nodes: Arithmetic, codes: str, left_out: str | None = None) -> str:
    """How far each uint8 code lies below the largest of its row, int32. left_out: 255 where it is that far, else 0."""
    distances = nodes.node("Sub", nodes.reduce("ReduceMax", codes, [operation.dim]), codes)
    if left_out is not None:
        distances = nodes.node("Max", distances, left_out)
    return nodes.cast(distances, numpy.int32)


def _exponentials(writer: Writer, operation: Softmax | LogSoftmax, nodes: Arithmetic) -> tuple[str, str]:
    """Exponentials, int32, and their sums over a row, int64."""
    codes, shape = tensor_of(operation.inputs[0]), writer.shape(operation.inputs[0])
    mask = tensor_of(operation.inputs[1]) if len(operation.inputs) == 2 else None
    table = array_of(operation.factors.exponentials)
    table = numpy.pad(table, (0, _PLACES - len(table)))
    left_out = None
    if mask is not None:
        codes = nodes.node("Mul", codes, mask)
        if not table[-1]:
            # The last exponential is 0, as those of masked elements are: they are sent there. 0 - 1 is 255 in uint8.
            left_out = nodes.apply("Sub", mask, 1, numpy.uint8)
    exponentials = nodes.look_up(table, numpy.int32, _distances(operation, nodes, codes, left_out), shape)
    if mask is not None and left_out is None:
        exponentials = nodes.node("Mul", exponentials, nodes.cast(mask, numpy.int32))
    if int(table[0]) * writer.graph.longest(shape[operation.dim - 1]) <= INT32_MAX:
        return exponentials, nodes.cast(_sums(nodes, exponentials, shape, operation.dim, numpy.int32), numpy.int64)
    return exponentials, _sums(nodes, nodes.cast(exponentials, numpy.int64), shape, operation.dim, numpy.int64)


def _sums(nodes: Arithmetic, numbers: str, shape: tuple[int, ...], dim: int, dtype: type) -> str:
    """Sums over a dimension, of the numbers' type `dtype`."""
    size = shape[dim - 1]
    if dim == len(shape) and not isinstance(size, Length):
        return nodes.sum_last(numbers, size, dtype)
    return nodes.reduce("ReduceSum", numbers, [dim])


def _log(nodes: Arithmetic, sums: str, bits: int, digits: int, at_end: bool) -> str:
    """`kernels.integer_log` of int64 sums, one a row. at_end: whether rows run along the last dimension."""
    apply = nodes.of_rows
    exponent = nodes.step_up(sums, {1 << (bits + place): place for place in range(digits + 1)}, at_end)
    raised = apply("Mul", sums, nodes.gather([1 << (digits - place) for place in range(digits + 1)], exponent))
    step = 1 << (bits + digits - LOG_TABLE_BITS)
    places = apply("Div", raised, step)
    base = apply("Mul", places, step)
    rest = apply("Div", apply("Mul", apply("Sub", raised, base), 1 << LOG_BITS), base)
    square = apply("Div", apply("Mul", rest, rest), 1 << (LOG_BITS + 1))
    first = nodes.gather(array_of(log_table()), apply("Sub", places, 1 << LOG_TABLE_BITS))
    whole = apply("Add", first, apply("Mul", exponent, LOG_OF_TWO))
    return apply("Sub", apply("Add", whole, rest), square)
