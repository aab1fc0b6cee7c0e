"""Softmax and its logarithm of integer operators: a table of exponentials, their sums, and one division.

LiteRT's own softmax of int8 numbers computes in floating point on the way. This is the program's definition, operator
for operator (`qat.integer.kernels.softmax`).
"""

import numpy

from qat.emitters.litert.forms.choices import counted_mask
from qat.emitters.litert.forms.divided import divided
from qat.emitters.litert.forms.integers import Integers
from qat.emitters.litert.long_division import digits_of
from qat.emitters.litert.model import schema
from qat.emitters.litert.orders import Order
from qat.emitters.litert.writer import Writer, array_of
from qat.integer.kernels.softmax import LOG_OF_TWO
from qat.integer.operations import LogSoftmax, Softmax
from qat.integer.operations.softmax import LOG_BITS, LOG_SUM_LIMIT, LOG_TABLE_BITS

#: What a masked score is lowered by in the float32 network: beyond every exponential.
_MASKED = -1e4


def softmax(writer: Writer, operation: Softmax) -> None:
    """The program's integer softmax; SOFTMAX of real numbers."""
    if writer.real:
        _of_reals(writer, operation)
        return
    order, factors = writer.common_order(operation.inputs), operation.factors
    nodes = Integers(writer, operation.name)
    _, parts, sums = _exponentials(nodes, operation, order)
    sums = nodes.cast(sums, numpy.int64)
    if factors.sum_shift:
        size = writer.shape(operation.inputs[0])[operation.dim - 1]
        step, largest = 1 << factors.sum_shift, factors.one * size
        digits = digits_of(largest // step, step, largest)
        sums = divided(nodes, sums, nodes.constant(step, sums), digits)
    scaled = nodes.apply("MUL", sums, factors.divisor_factor)
    highest = ((factors.divisor_limit + 1) << factors.divisor_shift) - 1
    scaled = nodes.apply("MINIMUM", nodes.apply("ADD", scaled, factors.half), min(highest, 2**62))
    divisors = nodes.apply("MAXIMUM", nodes.shifted(scaled, factors.divisor_shift), 1)
    numerators = nodes.apply("MUL", parts, 1 << factors.numerator_shift)
    raised = nodes.between("ADD", numerators, nodes.right(divisors, 1))
    nodes.finish(operation, order, nodes.between("DIV", raised, divisors), 0)


def log_softmax(writer: Writer, operation: LogSoftmax) -> None:
    """The program's integer logarithm of a softmax; LOG_SOFTMAX of real numbers."""
    if writer.real:
        _of_reals(writer, operation)
        return
    order, factors = writer.held(operation.inputs[0]).order, operation.factors
    nodes = Integers(writer, operation.name)
    distances, _, sums = _exponentials(nodes, operation, order)
    logs = _logarithm(nodes, nodes.cast(sums, numpy.int64), factors.one.bit_length() - 1, array_of(factors.logs))
    scaled = nodes.apply("ADD", nodes.apply("MUL", logs, factors.log_factor), (1 << factors.log_shift) >> 1)
    row = nodes.apply("ADD", nodes.shifted(scaled, factors.log_shift), (1 << factors.shift) >> 1)
    row = nodes.reshaped(row, writer.model.shape(sums))
    steps = nodes.between("ADD", nodes.apply("MUL", distances, factors.distance_factor), row)
    below = nodes.right(steps, factors.shift)
    nodes.finish(operation, order, nodes.between("SUB", nodes.constant(0, below), below), 0)


def _exponentials(nodes: Integers, operation: Softmax | LogSoftmax, order: Order) -> tuple[int, int, int]:
    """(distances to the largest of a row, their exponentials, sums of these), sums int64 where int32 is too narrow."""
    writer, factors = nodes.writer, operation.factors
    source, *masks = operation.inputs
    tensor, axis = writer.read(source, order), order.index(operation.dim)
    if masks:
        taking_part = counted_mask(writer, masks[0], order)
        counted = nodes.apply(
            "SUB", nodes.cast(tensor, numpy.int32), writer.grid(source).quant_min + writer.offset(source)
        )
        counted = nodes.between("MUL", counted, taking_part)
        largest = nodes.reduced("REDUCE_MAX", counted, [axis])
    else:
        reducer = schema.ReducerOptionsT()
        reducer.keepDims = True
        row = tuple(1 if place == axis else size for place, size in enumerate(writer.model.shape(tensor)))
        narrow = writer.like(source, f"{operation.name}/largest", row)
        writer.model.operator("REDUCE_MAX", [tensor, writer.numbers([axis])], [narrow], reducer)
        largest, counted = (nodes.cast(each, numpy.int32) for each in (narrow, tensor))
    distances = nodes.between("SUB", largest, counted)
    parts = nodes.gathered(array_of(factors.exponentials), distances)
    if masks:
        parts = nodes.between("MUL", parts, taking_part)
    fits = factors.one * writer.shape(source)[operation.dim - 1] < 2**31
    sums = nodes.reduced("SUM", parts if fits else nodes.cast(parts, numpy.int64), [axis])
    return distances, parts, sums


def _logarithm(nodes: Integers, sums: int, bits: int, table: numpy.ndarray) -> int:
    """`kernels.softmax.integer_log` of sums in 2^bits..2^LOG_SUM_LIMIT, int64 (N, rows)."""
    shape = (1, int(numpy.prod(nodes.writer.model.shape(sums))))
    digits = LOG_SUM_LIMIT - bits
    exponents = nodes.reached(nodes.reshaped(sums, (*shape, 1)), [2 << (bits + place) for place in range(digits)])
    exponents = nodes.reshaped(exponents, shape)
    sums = nodes.reshaped(sums, shape)
    raised = nodes.between("MUL", sums, nodes.gathered(2 ** numpy.arange(digits, -1, -1), exponents))
    shift = LOG_SUM_LIMIT - LOG_TABLE_BITS
    places = nodes.shifted(raised, shift)
    first = nodes.gathered(table, nodes.apply("SUB", places, 2**LOG_TABLE_BITS))
    # (low << LOG_BITS) / (places << shift) of the bits behind the places
    low = nodes.apply("FLOOR_MOD", raised, 1 << shift)
    divisors = nodes.apply("MUL", nodes.cast(places, numpy.int64), 1 << (shift - LOG_BITS))
    most = 2 ** (LOG_TABLE_BITS + 1 + shift - LOG_BITS)
    rest = divided(nodes, low, divisors, digits_of(1 << (LOG_BITS - LOG_TABLE_BITS), most, 1 << shift))
    squares = nodes.cast(nodes.shifted(nodes.between("MUL", rest, rest), LOG_BITS + 1), numpy.int64)
    wholes = nodes.apply("MUL", nodes.cast(exponents, numpy.int64), LOG_OF_TWO)
    return nodes.between("SUB", nodes.between("ADD", nodes.between("ADD", first, wholes), rest), squares)


def _of_reals(writer: Writer, operation: Softmax | LogSoftmax) -> None:
    """SOFTMAX or LOG_SOFTMAX, over the last dimension.

    A mask lowers what it leaves out, and is a factor of the result.
    """
    source, *masks = operation.inputs
    held = writer.common_order(operation.inputs)
    order = (*(dim for dim in held if dim != operation.dim), operation.dim)
    tensor, shape = writer.read(source, order), writer.model.shape(writer.read(source, order))
    if isinstance(operation, LogSoftmax):
        writer.moved("LOG_SOFTMAX", [tensor], operation.output, order, schema.LogSoftmaxOptionsT())
        return
    options = schema.SoftmaxOptionsT()
    options.beta = 1.0
    if not masks:
        writer.moved("SOFTMAX", [tensor], operation.output, order, options)
        return
    nodes, taking_part = Integers(writer, operation.name), writer.read(masks[0], order)
    size = writer.model.shape(taking_part)

    def number(value):
        return writer.model.constant("n", numpy.array([value], numpy.float32))

    left_out = nodes.add("SUB", [taking_part, number(1.0)], schema.SubOptionsT(), size, numpy.float32)
    lowered = nodes.add("MUL", [left_out, number(-_MASKED)], schema.MulOptionsT(), size, numpy.float32)
    scores = nodes.add("ADD", [tensor, lowered], schema.AddOptionsT(), shape, numpy.float32)
    shares = nodes.add("SOFTMAX", [scores], options, shape, numpy.float32)
    writer.moved("MUL", [shares, taking_part], operation.output, order, schema.MulOptionsT())
