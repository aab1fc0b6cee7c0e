"""Codes in another place or another shape."""

import numpy

from qat.emitters.onnxruntime.graph import pads_of
from qat.emitters.onnxruntime.writer import Writer, tensor_of
from qat.integer.operations import Concatenate, Expand, Max, MaxPool, Pad, Reshape, Slice, Transpose


def max_pool(writer: Writer, operation: MaxPool) -> None:
    """MaxPool on codes, with the overhang of ceil_mode written out as padding."""
    source, target = tensor_of(operation.inputs[0]), tensor_of(operation.output)
    padding = operation.full_padding(writer.shape(operation.inputs[0]))
    if any(max(pair) >= size for pair, size in zip(padding, operation.kernel_size, strict=True)):
        # The kernel pads by less than a window; further out, 0 is the code that never wins.
        amounts = writer.graph.constant(f"{target}/amounts", pads_of(((0, 0), (0, 0), *padding)), numpy.int64)
        lowest = writer.graph.constant(f"{target}/lowest", 0, numpy.uint8)
        source = writer.graph.node("Pad", [source, amounts, lowest], f"{target}/padded")
        padding = ((0, 0),) * len(padding)
    writer.graph.node(
        "MaxPool",
        [source],
        target,
        kernel_shape=operation.kernel_size,
        strides=operation.stride,
        pads=pads_of(padding),
        dilations=operation.dilation,
    )


def pad(writer: Writer, operation: Pad) -> None:
    """Pad with the code of zero."""
    target = tensor_of(operation.output)
    amounts = writer.graph.constant(f"{target}/amounts", pads_of(((0, 0), *operation.amounts)), numpy.int64)
    zero_point = writer.zero_point(operation.inputs[0])
    writer.graph.node("Pad", [tensor_of(operation.inputs[0]), amounts, zero_point], target)


def largest(writer: Writer, operation: Max) -> None:
    """ReduceMax."""
    source, target = tensor_of(operation.inputs[0]), tensor_of(operation.output)
    axes = writer.graph.constant(f"{target}/axes", operation.dims, numpy.int64)
    writer.graph.node("ReduceMax", [source, axes], target, keepdims=int(operation.keepdim))


def concatenate(writer: Writer, operation: Concatenate) -> None:
    """Concat; constants are repeated for as many samples as a value has."""
    target, graph = tensor_of(operation.output), writer.graph
    value = next(tensor_of(name) for name in operation.inputs if not writer.is_constant(name))
    sources = [
        graph.repeat(tensor_of(name), writer.shape(name), value, f"{target}/{place}")
        if writer.is_constant(name)
        else tensor_of(name)
        for place, name in enumerate(operation.inputs)
    ]
    graph.node("Concat", sources, target, axis=operation.dim)


def reshape(writer: Writer, operation: Reshape) -> None:
    """Reshape, which keeps the batch; nothing, for the runtime, where the shape is the same."""
    if writer.shape(operation.inputs[0]) == operation.shape:
        writer.graph.node("Identity", [tensor_of(operation.inputs[0])], tensor_of(operation.output))
        return
    writer.reshape(tensor_of(operation.inputs[0]), tensor_of(operation.output), (0, *operation.shape))


def transpose(writer: Writer, operation: Transpose) -> None:
    """Transpose."""
    source, target = tensor_of(operation.inputs[0]), tensor_of(operation.output)
    writer.graph.node("Transpose", [source], target, perm=operation.permutation)


def cut(writer: Writer, operation: Slice) -> None:
    """Slice."""
    source, target = tensor_of(operation.inputs[0]), tensor_of(operation.output)
    axes = range(1, len(operation.starts) + 1)
    cuts = {"starts": operation.starts, "ends": operation.ends, "axes": axes, "steps": operation.steps}
    names = [writer.graph.constant(f"{target}/{key}", list(numbers), numpy.int64) for key, numbers in cuts.items()]
    writer.graph.node("Slice", [source, *names], target)


def expand(writer: Writer, operation: Expand) -> None:
    """Expand, where a 1 keeps the batch."""
    source, target = tensor_of(operation.inputs[0]), tensor_of(operation.output)
    shape = writer.graph.constant(f"{target}/shape", (1, *operation.shape), numpy.int64)
    writer.graph.node("Expand", [source, shape], target)
