"""Codes that are chosen by a mask, and where the largest lie."""

import numpy

from qat.emitters.litert import orders
from qat.emitters.litert.forms.tables import cast
from qat.emitters.litert.model import schema
from qat.emitters.litert.orders import Order
from qat.emitters.litert.writer import Writer, array_of
from qat.integer.operations import ArgMax, Select


def select(writer: Writer, operation: Select) -> None:
    """SELECT_V2."""
    mask, *others = operation.inputs
    order = writer.common_order(operation.inputs)
    tensors = [_chosen(writer, mask, order), *(writer.read(name, order) for name in others)]
    writer.moved("SELECT_V2", tensors, operation.output, order, schema.SelectV2OptionsT())


def counted_mask(writer: Writer, mask: str, order: Order) -> int:
    """A mask as int32 numbers 0 and 1."""
    if writer.is_constant(mask):
        codes = array_of(writer.program.value(mask).codes)
        return writer.model.constant(mask, codes[None].transpose(order).astype(numpy.int32))
    tensor = writer.read(mask, order)
    wide = cast(writer, tensor, numpy.int32, f"{mask}/i")
    counted = writer.model.tensor(f"{mask}/c", writer.model.shape(tensor), numpy.int32)
    operands = [wide, writer.numbers([-writer.offset(mask)])]
    writer.model.operator("ADD", operands, [counted], schema.AddOptionsT())
    return counted


def _chosen(writer: Writer, mask: str, order: Order) -> int:
    """A mask as truth values. The comparison of int8 numbers aborts in ai-edge-litert 2.3: they are counted first."""
    if writer.is_constant(mask):
        numbers = array_of(writer.program.value(mask).codes)[None].transpose(order)
        return writer.model.constant(mask, numbers.astype(numpy.bool_))
    tensor = writer.read(mask, order) if writer.real else counted_mask(writer, mask, order)
    return cast(writer, tensor, numpy.bool_, f"{mask}/b")


def arg_max(writer: Writer, operation: ArgMax) -> None:
    """ARG_MAX; the first among equals."""
    source = operation.inputs[0]
    order = writer.held(source).order
    tensor, axis = writer.read(source, order), order.index(operation.dim)
    if not writer.real and writer.is_wide(source):  # int16 numbers have no kernel
        tensor = cast(writer, tensor, numpy.int32, f"{operation.name}/i")
    options = schema.ArgMaxOptionsT()
    options.outputType = schema.TensorType.INT32
    operands = [tensor, writer.numbers([axis])]
    if not operation.keepdim:
        writer.moved("ARG_MAX", operands, operation.output, orders.without(order, (operation.dim,)), options)
        return
    sizes = writer.model.shape(tensor)
    flat = writer.model.tensor(f"{operation.name}/flat", (*sizes[:axis], *sizes[axis + 1 :]), numpy.int32)
    writer.model.operator("ARG_MAX", operands, [flat], options)
    target = writer.made(operation.output, order)
    writer.reshape(flat, target, writer.model.shape(target))
