"""Products of two matrices: BATCH_MATMUL, and FULLY_CONNECTED where one of them is a constant."""

import numpy

from qat.emitters.litert.forms.sums import fully_connected
from qat.emitters.litert.limits import whole_steps
from qat.emitters.litert.model import Scaling, schema
from qat.emitters.litert.orders import Order, usual
from qat.emitters.litert.writer import Writer, array_of, codes_array
from qat.integer.operations import MatMul
from qat.integer.reals import dequantize
from qat.integer.values import float32


def matmul(writer: Writer, operation: MatMul) -> None:
    """FULLY_CONNECTED of a value and a constant, BATCH_MATMUL of two values."""
    first, second = operation.inputs
    rank = len(writer.shape(operation.output))
    if writer.is_constant(second):
        _with_constant(writer, operation, first, second, usual(rank), is_first=False)
    elif writer.is_constant(first):
        _with_constant(writer, operation, second, first, _turned(rank), is_first=True)
    else:
        _of_values(writer, operation)


def _turned(rank: int) -> Order:
    """Rows and columns the other way round."""
    return (*range(rank - 1), rank, rank - 1)


def _with_constant(writer: Writer, operation: MatMul, value: str, constant: str, order: Order, is_first: bool) -> None:
    """y = x C of rows as they are, and its transpose, y' = x' C', where the constant comes first."""
    codes = writer.program.value(constant).codes
    matrix = codes.reshape(codes.shape[-2:])
    matrix = matrix if is_first else matrix.T  # (outputs, inputs)
    tensor, outputs = writer.read(value, order), len(matrix)
    if writer.real:
        reals = array_of(dequantize(matrix, writer.grid(constant)) * operation.factor)
        weight = writer.model.constant("matrix", reals)
        bias = writer.model.constant("zeros", numpy.zeros(outputs, numpy.float32))
    else:
        numbers, step = whole_steps(codes_array(matrix) - writer.grid(constant).zero_point)
        scale = float32(writer.scale(constant) * operation.factor) * step
        unit = float32(float32(writer.scale(value)) * scale)
        numbers = numbers.astype(numpy.int8)
        weight = writer.model.constant("matrix", numbers, Scaling((scale,) * outputs))
        bias = writer.model.constant("zeros", numpy.zeros(outputs, numpy.int32), Scaling((unit,) * outputs))

    def write(target: int, activation: int) -> None:
        fully_connected(writer, [tensor, weight, bias], target, activation)

    writer.limited(operation, order, write)


def _of_values(writer: Writer, operation: MatMul) -> None:
    order = usual(len(writer.shape(operation.output)))
    first, second = (writer.held(name) for name in operation.inputs)
    turned = _turned(len(order) - 1)
    options = schema.BatchMatMulOptionsT()
    options.adjX, options.adjY = first.order == turned, second.order == turned
    tensors = [
        placed.tensor if placed.order == turned else writer.read(name)
        for name, placed in zip(operation.inputs, (first, second), strict=True)
    ]

    def write(target: int, _: int) -> None:
        writer.model.operator("BATCH_MATMUL", tensors, [target], options)

    writer.limited(operation, order, write, fuses=False)
