"""Products of two matrices: BATCH_MATMUL, and FULLY_CONNECTED where one of them is a constant."""

import numpy

from qat.emitters.litert.forms.integers import Integers
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
    if not writer.real and writer.is_wide(operation.output):
        _of_wide_values(writer, operation)
    elif writer.is_constant(second):
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
    """BATCH_MATMUL to int32, which knows no zero points, and what is missing of it; then rescaled in int64.

    To int8 its kernel rounds twice, but once where a matrix is a vector.
    """
    order = usual(len(writer.shape(operation.output)))
    turned = _turned(len(order) - 1)
    placed = [writer.held(name) for name in operation.inputs]
    options = schema.BatchMatMulOptionsT()
    options.adjX, options.adjY = (each.order == turned for each in placed)
    tensors = [
        each.tensor if each.order == turned else writer.read(name)
        for name, each in zip(operation.inputs, placed, strict=True)
    ]
    if writer.real:
        _real_product(writer, operation, tensors, options)
        return
    nodes, shape = Integers(writer, operation.name), (1, *writer.shape(operation.output))
    sums = nodes.add("BATCH_MATMUL", tensors, options, shape)
    points = [writer.grid(name).zero_point + writer.offset(name) for name in operation.inputs]
    count = writer.shape(operation.inputs[0])[-1]
    for side, (tensor, other) in enumerate(zip(tensors, points[::-1], strict=True)):
        if other:
            missing = _summed(writer, nodes, tensor, placed[side].order == turned, side)
            sums = nodes.between("SUB", sums, nodes.apply("MUL", missing, other))
    if all(points):
        sums = nodes.apply("ADD", sums, count * points[0] * points[1])
    mantissa, shift = int(operation.multiplier.mantissa), -int(operation.multiplier.exponent)
    sources = [writer.program.value(name) for name in operation.inputs]
    reach = operation.reach(sources, writer.program.value(operation.output))
    lift = (reach * mantissa >> shift) + 2  # what is shifted has to be positive
    scaled = nodes.apply("MUL", nodes.cast(sums, numpy.int64), mantissa)
    raised = nodes.apply("ADD", scaled, (1 << (shift - 1)) + (lift << shift))
    nodes.finish(operation, order, nodes.shifted(raised, shift), -lift)


def _of_wide_values(writer: Writer, operation: MatMul) -> None:
    """BATCH_MATMUL of int16 matrices, which rescales its sums; the factor is part of the second one's scale."""
    order, (first, second) = usual(len(writer.shape(operation.output))), operation.inputs
    tensors = [writer.read(first), writer.read(second)]
    if operation.factor != 1.0:
        shape, scale = writer.model.shape(tensors[1]), float32(writer.scale(second) * operation.factor)
        scaled = writer.model.tensor(f"{operation.name}/scaled", shape, numpy.int16, Scaling((scale,)))
        writer.reshape(tensors[1], scaled, shape)
        tensors[1] = scaled

    def write(target: int, _: int) -> None:
        writer.model.operator("BATCH_MATMUL", tensors, [target], schema.BatchMatMulOptionsT())

    writer.limited(operation, order, write, fuses=False)


def _summed(writer: Writer, nodes: Integers, tensor: int, is_turned: bool, side: int) -> int:
    """Sums over the dimension that a product is over, int32: of rows of the first matrix, of columns of the second."""
    shape = list(writer.model.shape(tensor))
    axis = len(shape) - (1 if is_turned == bool(side) else 2)
    wide = nodes.cast(tensor, numpy.int32)
    shape[axis] = 1
    reducer = schema.ReducerOptionsT()
    reducer.keepDims = True
    summed = nodes.add("SUM", [wide, writer.numbers([axis])], reducer, tuple(shape))
    if not is_turned:
        return summed
    target = writer.model.tensor(f"{nodes.name}/turned{side}", (*shape[:-2], shape[-1], shape[-2]), numpy.int32)
    writer.reshape(summed, target, writer.model.shape(target))
    return target


def _real_product(writer: Writer, operation: MatMul, tensors: list[int], options) -> None:
    order = usual(len(writer.shape(operation.output)))

    def write(target: int, _: int) -> None:
        if operation.factor == 1.0:
            writer.model.operator("BATCH_MATMUL", tensors, [target], options)
            return
        product = writer.tensor(operation.output, order, f"{operation.name}/product")
        writer.model.operator("BATCH_MATMUL", tensors, [product], options)
        factor = writer.model.constant("factor", numpy.full((1,) * len(order), operation.factor, numpy.float32))
        writer.model.operator("MUL", [product, factor], [target], schema.MulOptionsT())

    writer.limited(operation, order, write, fuses=False)
