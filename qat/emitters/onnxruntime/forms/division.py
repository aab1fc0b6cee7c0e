"""Division as integer nodes."""

import numpy

from qat.emitters.onnxruntime.arithmetic import Arithmetic
from qat.emitters.onnxruntime.writer import Writer, tensor_of
from qat.integer.operations import Divide


def divide(writer: Writer, operation: Divide) -> None:
    """`kernels.divide` in int32. The runtime's division cuts off what is behind the point, of either sign."""
    ratio, nodes = operation.ratio, Arithmetic(writer, operation, numpy.int32)
    centered, negative = [], []
    for name in operation.inputs:
        grid = writer.grid(name)
        codes = nodes.cast(tensor_of(name), numpy.int32)
        zero_point = grid.zero_point + grid.unsigned_offset
        centered.append(nodes.apply("Sub", codes, zero_point) if zero_point else codes)
        negative.append(grid.reach[0] < 0)
    first, second = centered
    # A tie is away from zero, so half a divisor is added with the sign of the quotient, whose divisor has none.
    if negative[1]:
        turned = nodes.node("Where", nodes.apply("Less", second, 0), nodes.node("Neg", first), first)
        first, second = turned, nodes.node("Abs", second)
    divisors = nodes.apply("Mul", nodes.apply("Max", second, 1), 1 << ratio.shift)
    half = nodes.apply("Div", divisors, 2)
    if any(negative):
        half = nodes.node("Where", nodes.apply("Less", first, 0), nodes.node("Neg", half), half)
    numerators = nodes.apply("Add", nodes.apply("Mul", first, ratio.numerator), half)
    nodes.finish(nodes.apply("Div", numerators, divisors))
