"""Division of one value by another, of integer operators: DIV of int32 numbers."""

import numpy

from qat.emitters.litert.forms.integers import Integers
from qat.emitters.litert.limits import Activation
from qat.emitters.litert.model import schema
from qat.emitters.litert.orders import Order
from qat.emitters.litert.writer import Writer, array_of
from qat.integer.operations import Divide


def divide(writer: Writer, operation: Divide) -> None:
    """`kernels.division`; DIV of real numbers."""
    order = writer.common_order(operation.inputs)
    if writer.real:
        _of_reals(writer, operation, order)
        return
    nodes, ratio = Integers(writer, operation.name), operation.ratio
    first, second = (_centered(nodes, name, order) for name in operation.inputs)
    signed = [writer.grid(name).reach[0] < 0 for name in operation.inputs]
    sizes = nodes.absolute(second) if signed[1] else second
    # a divisor of 0 is its smallest positive step
    divisors = nodes.apply(
        "MUL", nodes.apply("ADD", nodes.apply("SUB", sizes, 1, Activation.RELU), 1), 1 << ratio.shift
    )
    magnitudes = nodes.apply("MUL", nodes.absolute(first) if signed[0] else first, ratio.numerator)
    raised = nodes.between("ADD", magnitudes, nodes.right(divisors, 1))
    steps = nodes.between("DIV", raised, divisors)
    if signed[0]:
        steps = nodes.between("MUL", steps, nodes.apply("ADD", first, 0, Activation.RELU_N1_TO_1))
    if signed[1]:
        doubled = nodes.apply("ADD", nodes.apply("MUL", second, 2), 1, Activation.RELU_N1_TO_1)
        steps = nodes.between("MUL", steps, doubled)
    nodes.finish(operation, order, steps, 0)


def _centered(nodes: Integers, name: str, order: Order) -> int:
    """Codes less their zero point, int32."""
    writer, grid = nodes.writer, nodes.writer.grid(name)
    if writer.is_constant(name):
        codes = array_of(writer.program.value(name).codes).astype(numpy.int32) - grid.zero_point
        return writer.numbers(codes[None].transpose(order))
    wide = nodes.cast(writer.read(name, order), numpy.int32)
    return nodes.apply("SUB", wide, grid.zero_point + writer.offset(name))


def _of_reals(writer: Writer, operation: Divide, order: Order) -> None:
    """DIV; a divisor of 0 has no meaning that the network would know."""
    operands = [writer.read(name, order) for name in operation.inputs]

    def write(target: int, activation: int) -> None:
        options = schema.DivOptionsT()
        options.fusedActivationFunction = activation
        writer.model.operator("DIV", operands, [target], options)

    writer.limited(operation, order, write)
