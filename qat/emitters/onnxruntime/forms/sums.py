"""Sums of products with constant weights, and sums over windows and dimensions.

Means and average pools are matrix products and convolutions with ones, so that they are rescaled as everything else is;
the runtime's own average pool adds up real numbers. Its global one adds up codes, and is taken where it fits.
"""

import math

import numpy

from qat.emitters.onnxruntime.forms.global_means import global_mean
from qat.emitters.onnxruntime.forms.varying import mean_of_length
from qat.emitters.onnxruntime.graph import array_of, pads_of
from qat.emitters.onnxruntime.writer import MICROSOFT, Writer, tensor_of
from qat.integer.lengths import Length
from qat.integer.operations import AveragePool, Conv, Linear, Mean, Sum, WeightedOperation
from qat.integer.values import float32

#: Dimensions behind the batch up to which the runtime has convolutions.
MOST_CONVOLVED = 4


def convolution(writer: Writer, operation: Conv) -> None:
    """QLinearConv."""
    source = operation.inputs[0]
    operands = [
        tensor_of(source),
        *writer.grid_constants(source),
        *weights(writer, operation),
        *writer.grid_constants(operation.output),
        bias(writer, operation),
    ]
    writer.limited(
        "QLinearConv",
        operands,
        operation,
        kernel_shape=operation.kernel_size,
        strides=operation.stride,
        pads=pads_of(operation.padding),
        dilations=operation.dilation,
        group=operation.groups,
    )


def linear(writer: Writer, operation: Linear) -> None:
    """QGemm of matrices; of more dimensions QLinearConv with windows of one place, the last dimension the channels.

    The runtime computes convolutions with channels last and so takes the two Transposes out again. It rescales sums
    piece by piece, which QGemm does when all are there, and needs no Reshape: [8, 128, 256] by [256, 1024] took 1.0 ms
    in one thread of ONNX Runtime 1.32, with QGemm 1.7; [64, 49, 96] by [96, 288] 0.4 and 0.9.
    """
    source, name, graph = operation.inputs[0], operation.name, writer.graph
    codes, shape = tensor_of(source), writer.shape(operation.output)
    weight, *scales = weights(writer, operation)
    added = bias(writer, operation) if operation.bias.any() else ""
    grids = [writer.grid_constants(value) for value in (source, operation.output)]
    if len(shape) == 1:
        operands = [codes, *grids[0], weight, *scales, added, *grids[1]]
        writer.limited("QGemm", operands, operation, MICROSOFT, transB=1)
        return
    many = len(shape) > MOST_CONVOLVED
    if many:
        codes = writer.reshape(codes, f"{name}/rows", (0, -1, writer.shape(source)[-1]))
    places = list(range(2, 3 if many else len(shape) + 1))
    turned = graph.node("Transpose", [codes], f"{name}/turned", perm=[0, places[-1], 1, *places[:-1]])
    windows = graph.node(
        "Unsqueeze", [weight, graph.constant(f"{name}/places", places, numpy.int64)], f"{name}/windows"
    )
    operands = [turned, *grids[0], windows, *scales, *grids[1], *filter(None, [added])]
    sums = graph.node("QLinearConv", operands, f"{name}/result", kernel_shape=[1] * len(places))
    back = [0, *places, 1]
    if not many:
        writer.limited("Transpose", [sums], operation, perm=back)
        return
    rows = graph.node("Transpose", [sums], f"{name}/back", perm=back)
    writer.limited("Reshape", [rows, writer.shape_constant(name, (-1, *shape))], operation)


def average_pool(writer: Writer, operation: AveragePool) -> None:
    """A depthwise QLinearConv with ones; of a single window QLinearGlobalAveragePool."""
    if writer.shape(operation.inputs[0])[1:] == operation.kernel_size and not any(map(any, operation.padding)):
        if global_mean(writer, operation):
            return
    channels = writer.shape(operation.output)[0]
    ones = writer.graph.filled(f"{operation.name}/ones", (channels, 1, *operation.kernel_size), 1)
    writer.limited(
        "QLinearConv",
        _averaging(writer, operation, tensor_of(operation.inputs[0]), ones, float32(1 / operation.count)),
        operation,
        kernel_shape=operation.kernel_size,
        strides=operation.stride,
        pads=pads_of(operation.padding),
        group=channels,
    )


def reduce(writer: Writer, operation: Mean | Sum) -> None:
    """QLinearGlobalAveragePool of all but the channels, which stand first or last.

    Else a QLinearMatMul with a column of ones, the reduced dimensions moved to the end and joined.
    """
    source, name = operation.inputs[0], operation.name
    shape, codes = writer.shape(source), tensor_of(operation.inputs[0])
    if global_mean(writer, operation):
        return
    kept = [dim for dim in range(1, len(shape) + 1) if dim not in operation.dims]
    order = [0, *kept, *sorted(operation.dims)]
    if order != sorted(order):
        codes = writer.graph.node("Transpose", [codes], f"{name}/moved", perm=order)
    count = math.prod(shape[dim - 1] for dim in operation.dims)
    rows = writer.reshape(codes, f"{name}/rows", (0, *(shape[dim - 1] for dim in kept), count))
    if isinstance(count, Length) and isinstance(operation, Mean):
        mean_of_length(writer, operation, rows, count)
        return
    ones = writer.graph.ones(f"{name}/ones", count, numpy.int8)
    operands = _averaging(writer, operation, rows, ones, operation.share(count))
    result = writer.graph.node("QLinearMatMul", operands, f"{name}/result")
    writer.limited("Reshape", [result, writer.shape_constant(name, (0, *writer.shape(operation.output)))], operation)


def weights(writer: Writer, operation: WeightedOperation) -> list[str]:
    """Names of weight, weight scale and weight zero point."""
    name, channels = operation.name, len(operation.weight.codes)
    return [
        writer.graph.weight(f"{name}/weight", operation.weight),
        writer.graph.constant(f"{name}/weight_scale", array_of(operation.weight.scale), numpy.float32),
        writer.graph.constant(f"{name}/weight_zero_point", [0] * channels, numpy.int8),
    ]


def bias(writer: Writer, operation: WeightedOperation) -> str:
    """Name of the int32 bias."""
    return writer.graph.constant(f"{operation.name}/bias", array_of(operation.bias), numpy.int32)


def _averaging(writer: Writer, operation: AveragePool | Mean | Sum, codes: str, ones: str, share: float) -> list[str]:
    """Operands of a product with ones that each weigh `share`."""
    name, source = operation.name, operation.inputs[0]
    return [
        codes,
        *writer.grid_constants(source),
        ones,
        writer.graph.constant(f"{name}/share", share, numpy.float32),
        writer.graph.constant(f"{name}/zero", 0, numpy.int8),
        *writer.grid_constants(operation.output),
    ]
