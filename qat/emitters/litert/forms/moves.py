"""Codes in another place or another shape. A Transpose is no operator: it is another order of the same tensor."""

import numpy

from qat.emitters.litert import orders
from qat.emitters.litert.forms import cuts
from qat.emitters.litert.model import schema
from qat.emitters.litert.writer import Writer
from qat.integer.operations import (
    Concatenate,
    Expand,
    Linear,
    Max,
    Pad,
    Reshape,
    Slice,
    Take,
    Transpose,
)


def reshape(writer: Writer, operation: Reshape) -> None:
    """RESHAPE of the tensor as it is, where the order allows it; features of linear layers are numbered anew."""
    source, name = operation.inputs[0], operation.output
    placed, shape = writer.held(source), writer.shape(source)
    target = writer.shape(name)
    order = None if placed.columns else orders.reshaped(shape, target, placed.order)
    if order is None and _only_features(writer, name):
        columns = numpy.arange(numpy.prod(shape)).reshape(1, *shape).transpose(placed.order).reshape(-1)
        tensor = writer.tensor(name, orders.usual(1))
        writer.reshape(placed.tensor, tensor, (1, *target))
        writer.place(name, tensor, orders.usual(1), tuple(columns.tolist()))
        return
    tensor = placed.tensor
    if order is None:
        tensor, order = writer.read(source), orders.usual(len(target))
    writer.reshape(tensor, writer.made(name, order), orders.permuted(target, order))


def _only_features(writer: Writer, name: str) -> bool:
    """Whether a value is a vector that nothing but linear layers read."""
    readers = writer.readers.get(name, [])
    return (
        len(writer.shape(name)) == 1 and name not in writer.edges and all(isinstance(each, Linear) for each in readers)
    )


def transpose(writer: Writer, operation: Transpose) -> None:
    """The same tensor."""
    placed = writer.held(operation.inputs[0])
    tensor = placed.tensor
    if placed.columns:
        tensor, placed = writer.read(operation.inputs[0]), writer.held(operation.inputs[0])
    order = orders.transposed(placed.order, operation.permutation)
    writer.place(operation.output, tensor, order)


def concatenate(writer: Writer, operation: Concatenate) -> None:
    """CONCATENATION; a constant is repeated for the samples of the batch."""
    order = writer.common_order(operation.inputs)
    tensors = [writer.read(name, order) for name in operation.inputs]
    options = schema.ConcatenationOptionsT()
    options.axis = order.index(operation.dim)
    writer.moved("CONCATENATION", tensors, operation.output, order, options)


def cut(writer: Writer, operation: Slice) -> None:
    """STRIDED_SLICE in steps of 1 behind a RESHAPE, as `cuts` says, where sizes are multiples of the steps."""
    source, name = operation.inputs[0], operation.output
    order = writer.held(source).order
    tensor = writer.read(source, order)
    places = [dim - 1 for dim in order[1:]]
    starts, steps = (
        [default, *(numbers[place] for place in places)]
        for default, numbers in ((0, operation.starts), (1, operation.steps))
    )
    sizes = orders.permuted(writer.shape(name), order)
    for dim, step in enumerate(steps):
        if step > 1 and writer.model.shape(tensor)[dim] % step == 0:
            tensor = cuts.in_steps(writer, source, tensor, dim, starts[dim], sizes[dim], step)
            starts[dim], steps[dim] = 0, 1
    if writer.model.shape(tensor) == sizes:
        writer.place(name, tensor, order)
        return
    cuts.block_into(writer, tensor, writer.made(name, order), starts, steps)


def pad(writer: Writer, operation: Pad) -> None:
    """PAD, which writes the zero point."""
    source = operation.inputs[0]
    order = writer.held(source).order
    amounts = [((0, 0), *operation.amounts)[dim] for dim in order]
    tensors = [writer.read(source, order), writer.numbers(amounts)]
    writer.moved("PAD", tensors, operation.output, order, schema.PadOptionsT())


def take(writer: Writer, operation: Take) -> None:
    """GATHER."""
    _gather(writer, operation.inputs[0], operation.output, operation.dim, operation.indices.tolist())


def _gather(writer: Writer, source: str, name: str, dim: int, indices: list[int]) -> None:
    order = writer.held(source).order
    options = schema.GatherOptionsT()
    options.axis = order.index(dim)
    writer.moved("GATHER", [writer.read(source, order), writer.numbers(indices)], name, order, options)


def expand(writer: Writer, operation: Expand) -> None:
    """TILE."""
    source = operation.inputs[0]
    order = writer.held(source).order
    repeats = [1, *(wanted // size for wanted, size in zip(operation.shape, writer.shape(source), strict=True))]
    tensors = [writer.read(source, order), writer.numbers([repeats[dim] for dim in order])]
    writer.moved("TILE", tensors, operation.output, order)


def largest(writer: Writer, operation: Max) -> None:
    """REDUCE_MAX."""
    source = operation.inputs[0]
    order = writer.held(source).order
    options = schema.ReducerOptionsT()
    options.keepDims = operation.keepdim
    axes = writer.numbers([order.index(dim) for dim in operation.dims])
    left = order if operation.keepdim else orders.without(order, operation.dims)
    writer.moved("REDUCE_MAX", [writer.read(source, order), axes], operation.output, left, options)
