"""Arithmetic element by element: ADD, MUL, and another scale as a product with a constant.

LiteRT's own change of a scale (QUANTIZE from int8 to int8) has factors of 8 bits; as a product it is as exact as any.
"""

import numpy

from qat.emitters.litert.limits import Activation
from qat.emitters.litert.model import Scaling, schema
from qat.emitters.litert.writer import Writer
from qat.integer.operations import Add, Mul, Negate, Requantize
from qat.integer.values import float32


def add(writer: Writer, operation: Add) -> None:
    """ADD."""
    _binary(writer, operation, "ADD", _add_options)


def _add_options() -> schema.AddOptionsT:
    made = schema.AddOptionsT()
    made.potScaleInt16 = False  # what 16-bit codes with powers of two for scales have a kernel for, rounds otherwise
    return made


def multiply(writer: Writer, operation: Mul) -> None:
    """MUL."""
    _binary(writer, operation, "MUL", schema.MulOptionsT)


def _binary(writer: Writer, operation: Add | Mul, kind: str, describe) -> None:
    order = writer.common_order(operation.inputs)
    operands = [writer.read(name, order) for name in operation.inputs]

    def write(target: int, activation: int) -> None:
        options = describe()
        options.fusedActivationFunction = activation
        writer.model.operator(kind, operands, [target], options)

    writer.limited(operation, order, write)


def requantize(writer: Writer, operation: Requantize) -> None:
    """MUL by the factor as the single code of a constant; nothing but a clamp where scale and zero point stay."""
    source = operation.inputs[0]
    placed, grids = writer.held(source), (writer.grid(source), writer.grid(operation.output))
    tensor = writer.read(source, placed.order)
    if not writer.real and operation.is_clamp(*grids):
        writer.limited(operation, placed.order, lambda target, _: writer.quantize(tensor, target), fuses=False)
        return
    if not writer.real and writer.is_wide(operation.output) and not writer.is_wide(source):
        tensor = _widened(writer, source, tensor)
    writer.limited(
        operation, placed.order, lambda *to: _scaled(writer, tensor, operation.factor, len(placed.order), *to)
    )


def _widened(writer: Writer, source: str, tensor: int) -> int:
    """8-bit codes with zero point 0 as int16 numbers."""
    wide = writer.model.tensor(
        f"{source}/16", writer.model.shape(tensor), numpy.int16, Scaling((writer.scale(source),))
    )
    options = schema.CastOptionsT()
    options.inDataType, options.outDataType = schema.TensorType.INT8, schema.TensorType.INT16
    writer.model.operator("CAST", [tensor], [wide], options)
    return wide


def negate(writer: Writer, operation: Negate) -> None:
    """MUL by -1, on the mirrored grid."""
    placed = writer.held(operation.inputs[0])
    tensor = writer.read(operation.inputs[0], placed.order)
    target = writer.made(operation.output, placed.order)
    _scaled(writer, tensor, -1.0, len(placed.order), target, Activation.NONE)


def _scaled(writer: Writer, tensor: int, factor: float, rank: int, target: int, activation: int) -> None:
    """A tensor times a number."""
    options = schema.MulOptionsT()
    options.fusedActivationFunction = activation
    if writer.real:
        constant = writer.model.constant("factor", numpy.full((1,) * rank, factor, numpy.float32))
    else:
        wide = writer.model.tensors[tensor].type == schema.TensorType.INT16
        sign = numpy.full((1,) * rank, 1 if factor > 0 else -1, numpy.int16 if wide else numpy.int8)
        constant = writer.model.constant("factor", sign, Scaling((float32(abs(factor)),)))
    writer.model.operator("MUL", [tensor, constant], [target], options)
