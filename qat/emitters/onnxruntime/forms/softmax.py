"""Softmax and its logarithm as integer nodes.

Elementwise passes are int32, and what is computed once a row int64 (`python tests/benchmarks/bench_nonlinear.py`).
"""

import numpy

from qat.emitters.onnxruntime.arithmetic import Arithmetic
from qat.emitters.onnxruntime.graph import array_of
from qat.emitters.onnxruntime.writer import Writer, tensor_of
from qat.integer.kernels.softmax import LOG_OF_TWO, log_table
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
        sums = nodes.apply("Div", sums, 1 << factors.sum_shift, numpy.int64)
    products = nodes.apply("Mul", sums, factors.divisor_factor, numpy.int64)
    products = nodes.apply("Add", products, factors.half, numpy.int64)
    divisors = nodes.apply("Div", products, 1 << factors.divisor_shift, numpy.int64)
    limits = [nodes.constant(limit, numpy.int64) for limit in (1, factors.divisor_limit)]
    divisors = nodes.cast(nodes.node("Clip", divisors, *limits), numpy.int32)
    numerators = exponentials
    if factors.numerator_shift:
        numerators = nodes.apply("Mul", exponentials, 1 << factors.numerator_shift)
    numerators = nodes.apply("Add", numerators, nodes.apply("Div", divisors, 2))
    nodes.finish(nodes.apply("Div", numerators, divisors), (0, factors.largest_step))


def log_softmax(writer: Writer, operation: LogSoftmax) -> None:
    """Distances to the largest code, plus the logarithm of a sum of exponentials: `kernels.log_softmax`."""
    factors, nodes = operation.factors, Arithmetic(writer, operation, numpy.int32)
    _, sums = _exponentials(writer, operation, nodes)
    count = writer.shape(operation.inputs[0])[operation.dim - 1]
    logs = _log(nodes, sums, int(factors.exponentials[0]).bit_length() - 1, count.bit_length())
    scaled = nodes.apply("Mul", logs, factors.log_factor, numpy.int64)
    scaled = nodes.apply("Add", scaled, (1 << factors.log_shift) >> 1, numpy.int64)
    scaled = nodes.apply("Div", scaled, 1 << factors.log_shift, numpy.int64)
    half = (1 << factors.shift) >> 1
    scaled = nodes.cast(nodes.apply("Add", scaled, half, numpy.int64), numpy.int32)
    distances = _distances(operation, nodes, tensor_of(operation.inputs[0]))
    steps = nodes.apply("Add", nodes.apply("Mul", distances, factors.distance_factor), scaled)
    nodes.finish(nodes.apply("Div", steps, -(1 << factors.shift)))


def _distances(operation: Softmax | LogSoftmax, nodes: Arithmetic, codes: str) -> str:
    """How far each uint8 code lies below the largest of its row, int32."""
    largest = nodes.reduce("ReduceMax", codes, [operation.dim])
    return nodes.cast(nodes.node("Sub", largest, codes), numpy.int32)


def _exponentials(writer: Writer, operation: Softmax | LogSoftmax, nodes: Arithmetic) -> tuple[str, str]:
    """Exponentials, int32, and their sums over a row, int64."""
    codes, shape = tensor_of(operation.inputs[0]), writer.shape(operation.inputs[0])
    mask = tensor_of(operation.inputs[1]) if len(operation.inputs) == 2 else None
    if mask is not None:
        codes = nodes.node("Mul", codes, mask)
    table = array_of(operation.factors.exponentials)
    table = numpy.pad(table, (0, _PLACES - len(table)))
    exponentials = nodes.look_up(table, numpy.int32, _distances(operation, nodes, codes), shape)
    if mask is not None:
        exponentials = nodes.node("Mul", exponentials, nodes.cast(mask, numpy.int32))
    if int(table[0]) * shape[operation.dim - 1] <= INT32_MAX:
        return exponentials, nodes.cast(nodes.reduce("ReduceSum", exponentials, [operation.dim]), numpy.int64)
    return exponentials, nodes.reduce("ReduceSum", nodes.cast(exponentials, numpy.int64), [operation.dim])


def _log(nodes: Arithmetic, sums: str, bits: int, digits: int) -> str:
    """`kernels.integer_log` of int64 sums, one a row."""

    def apply(kind: str, first, second) -> str:
        return nodes.apply(kind, first, second, numpy.int64)

    exponent = nodes.count_reached(sums, [1 << (bits + place) for place in range(1, digits + 1)])
    raised = apply("Mul", sums, nodes.gather([1 << (digits - place) for place in range(digits + 1)], exponent))
    step = 1 << (bits + digits - LOG_TABLE_BITS)
    places = apply("Div", raised, step)
    base = apply("Mul", places, step)
    rest = apply("Div", apply("Mul", apply("Sub", raised, base), 1 << LOG_BITS), base)
    square = apply("Div", apply("Mul", rest, rest), 1 << (LOG_BITS + 1))
    first = nodes.gather(array_of(log_table()), apply("Sub", places, 1 << LOG_TABLE_BITS))
    whole = apply("Add", first, apply("Mul", exponent, LOG_OF_TWO))
    return apply("Sub", apply("Add", whole, rest), square)
