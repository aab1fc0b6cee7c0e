"""Softmax of integer operators: a table of exponentials, their sums, and one division for each code.

LiteRT's own softmax of int8 numbers computes in floating point on the way. This is the program's definition, operator
for operator (`qat.integer.kernels.softmax`).
"""

import numpy

from qat.emitters.litert.forms.integers import Integers
from qat.emitters.litert.model import schema
from qat.emitters.litert.writer import Writer, array_of
from qat.integer.operations import Softmax


def softmax(writer: Writer, operation: Softmax) -> None:
    """The program's integer softmax; SOFTMAX of real numbers."""
    source = operation.inputs[0]
    order = writer.held(source).order
    if writer.real:
        order = (*(dim for dim in order if dim != operation.dim), operation.dim)  # over the last dimension
        options = schema.SoftmaxOptionsT()
        options.beta = 1.0
        writer.moved("SOFTMAX", [writer.read(source, order)], operation.output, order, options)
        return
    tensor, axis = writer.read(source, order), order.index(operation.dim)
    nodes, factors = Integers(writer, operation.name), operation.factors
    shape = writer.model.shape(tensor)
    row = tuple(1 if place == axis else size for place, size in enumerate(shape))
    reducer, axes = schema.ReducerOptionsT(), writer.numbers([axis])
    reducer.keepDims = True
    largest = writer.like(source, f"{operation.name}/largest", row)
    writer.model.operator("REDUCE_MAX", [tensor, axes], [largest], reducer)
    wide = [nodes.cast(each, numpy.int32) for each in (largest, tensor)]
    distances = nodes.add("SUB", wide, schema.SubOptionsT(), shape)
    table = writer.numbers(array_of(factors.exponentials))
    parts = nodes.add("GATHER", [table, distances], schema.GatherOptionsT(), shape)
    sums = nodes.add("SUM", [parts, axes], reducer, row)
    if factors.sum_shift:
        sums = nodes.apply("FLOOR_DIV", sums, 1 << factors.sum_shift)
    scaled = nodes.apply("MUL", nodes.cast(sums, numpy.int64), factors.divisor_factor)
    highest = ((factors.divisor_limit + 1) << factors.divisor_shift) - 1
    scaled = nodes.apply("MINIMUM", nodes.apply("ADD", scaled, factors.half), min(highest, 2**62))
    divisors = nodes.apply("MAXIMUM", nodes.shifted(scaled, factors.divisor_shift), 1)
    numerators = nodes.apply("MUL", parts, 1 << factors.numerator_shift)
    raised = nodes.between("ADD", numerators, nodes.apply("FLOOR_DIV", divisors, 2))
    steps = nodes.between("DIV", raised, divisors)
    nodes.finish(operation, order, steps, 0)
