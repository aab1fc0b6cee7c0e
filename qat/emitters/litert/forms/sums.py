"""Sums of products with constant weights, and sums over windows and dimensions.

Means, sums and average pools are depthwise convolutions and matrix products with ones, so that they are rescaled as
everything else is: LiteRT's own kernel of an average pool keeps the scale of its input, and that of a mean adds the
zero point before it rounds.
"""

import math
from dataclasses import fields

import numpy
import torch

from qat.emitters.litert import orders
from qat.emitters.litert.channel_scales import channel_scales
from qat.emitters.litert.forms import windows
from qat.emitters.litert.forms.packed import as_matrix_product, packed_bits
from qat.emitters.litert.model import Scaling, schema
from qat.emitters.litert.writer import Writer, array_of
from qat.integer.operations import AveragePool, ComputingOperation, Conv, Linear, Mean, Sum, WeightedOperation
from qat.integer.values import float32

#: XNNPACK has kernels of depthwise convolutions up to so many places, and runs larger ones channel by channel: a mean
#: of 7 x 7 x 1280 in 0.29 ms, as a matrix product behind a Transpose in 0.03.
_LARGEST_DEPTHWISE = 25


def convolution(writer: Writer, operation: Conv) -> None:
    """CONV_2D or DEPTHWISE_CONV_2D; of narrow weights FULLY_CONNECTED over windows that were laid side by side."""
    if not writer.real and as_matrix_product(writer, operation):
        return
    weight = windows.flat_weight(operation.weight.kernel)
    window = windows.Window.of(operation.kernel_size, operation.stride, operation.padding, operation.dilation)
    if windows.is_depthwise(operation):
        weight = array_of(weight.permute(1, 2, 3, 0))  # (1, height, width, outputs)
        constants = weight_and_bias(writer, operation, weight, 3)
        windows.convolve(writer, operation, window, constants, len(operation.bias) // operation.groups)
        return
    weight = array_of(weight.permute(0, 2, 3, 1))
    plain = operation.groups == 1 and not writer.real and not writer.is_wide(operation.inputs[0])
    strip = windows.Strip.of(window, windows.sizes_of(writer, operation.inputs[0])) if plain else None
    constants = weight_and_bias(writer, operation, weight if strip is None else strip.weight(weight), 0)
    windows.convolve(writer, operation, window, constants, None, strip)


def linear(writer: Writer, operation: Linear) -> None:
    """FULLY_CONNECTED over the last dimension."""
    source = operation.inputs[0]
    placed = writer.held(source)
    kernel, codes = array_of(operation.weight.kernel), placed
    rank = len(writer.shape(operation.output))
    if placed.columns:
        kernel, tensor = kernel[:, list(placed.columns)], codes.tensor
    else:
        tensor = writer.read(source)
    if not writer.real and writer.is_wide(source):
        _linear_convolution(writer, operation, tensor, kernel)
        return
    constants = weight_and_bias(writer, operation, kernel, 0, packed_bits(writer, operation))

    def write(target: int, activation: int) -> None:
        fully_connected(writer, [tensor, *constants], target, activation)

    writer.limited(operation, orders.usual(rank), write)


def _linear_convolution(writer: Writer, operation: Linear, tensor: int, kernel: numpy.ndarray) -> None:
    """CONV_2D over rows of 16-bit codes: FULLY_CONNECTED rounds a few of a million otherwise than any fixed point."""
    outputs, inputs = kernel.shape
    shape = writer.shape(operation.output)
    count = math.prod(shape[:-1])
    rows = writer.like(operation.inputs[0], f"{operation.name}/rows", (1, count, 1, inputs))
    writer.reshape(tensor, rows, writer.model.shape(rows))
    kernel = kernel.reshape(outputs, 1, 1, inputs)
    constants = weight_and_bias(writer, operation, kernel, 0)

    def write(target: int, activation: int) -> None:
        options = schema.Conv2DOptionsT()
        options.padding, options.fusedActivationFunction = windows.VALID, activation
        options.strideH = options.strideW = options.dilationHFactor = options.dilationWFactor = 1
        scaling, dtype = writer.model.scaling(target), writer.dtype(operation.output)
        summed = writer.model.tensor(f"{operation.name}/sums", (1, count, 1, outputs), dtype, scaling)
        writer.model.operator("CONV_2D", [rows, *constants], [summed], options)
        writer.reshape(summed, target, (1, *shape))

    writer.limited(operation, orders.usual(len(shape)), write)


def average_pool(writer: Writer, operation: AveragePool) -> None:
    """A depthwise convolution with ones; a mean where one window is all there is; of real numbers AVERAGE_POOL_2D."""
    pads = any(map(any, operation.padding))
    if writer.real and not pads:
        windows.average_pool(writer, operation)
        return
    if not pads and operation.kernel_size == writer.shape(operation.inputs[0])[1:]:
        reduce(writer, _as_mean(operation))
        return
    ones = (1,) * len(operation.kernel_size)
    window = windows.Window.of(operation.kernel_size, operation.stride, operation.padding, ones)
    channels = writer.shape(operation.output)[0]
    constants = _ones(writer, operation, (1, *window.size, channels), float32(1 / operation.count))
    windows.convolve(writer, operation, window, constants, 1)


def _as_mean(operation: AveragePool) -> Mean:
    shared = {entry.name: getattr(operation, entry.name) for entry in fields(ComputingOperation)}
    dims = tuple(range(2, 2 + len(operation.kernel_size)))
    return Mean(**shared, dims=dims, keepdim=True, multiplier=operation.multiplier)


def reduce(writer: Writer, operation: Mean | Sum) -> None:
    """FULLY_CONNECTED with a row of ones over the last dimensions, else a depthwise convolution over the first."""
    source, shape = operation.inputs[0], writer.shape(operation.inputs[0])
    placed = writer.held(source)
    if writer.real:
        _reduce_real(writer, operation, placed.order)
        return
    reduced = [dim for dim in placed.order if dim in operation.dims and shape[dim - 1] > 1]
    kept = [dim for dim in placed.order[1:] if dim not in operation.dims]
    units = [dim for dim in operation.dims if dim not in reduced]
    count = math.prod(shape[dim - 1] for dim in operation.dims)
    last = [dim for dim in placed.order[1:] if shape[dim - 1] > 1][-len(reduced) :] == reduced if reduced else False
    last = last or count > _LARGEST_DEPTHWISE
    last = last and not writer.is_wide(source)  # whose two kernels round apart
    order = (0, *units, *kept, *reduced) if last else (0, *units, *reduced, *kept)
    tensor = writer.read(source, order if orders.moves_data(shape, placed.order, order) else placed.order)
    target_shape = writer.shape(operation.output)
    rank = len(target_shape)
    left = orders.usual(rank) if kept == sorted(kept) else _left(operation, order)
    rest = math.prod(shape[dim - 1] for dim in kept)
    if last:
        rows = writer.like(source, f"{operation.name}/rows", (1, rest, count))
        sums_shape, constants = (1, rest, 1), _ones(writer, operation, (1, count), operation.share(count))
    else:
        rows = writer.like(source, f"{operation.name}/rows", (1, count, 1, rest))
        sums_shape, constants = (1, 1, 1, rest), _ones(writer, operation, (1, count, 1, rest), operation.share(count))
    writer.reshape(tensor, rows, writer.model.shape(rows))

    def write(target: int, activation: int) -> None:
        summed = writer.model.tensor(
            f"{operation.name}/sums", sums_shape, writer.dtype(operation.output), writer.model.scaling(target)
        )
        if last:
            fully_connected(writer, [rows, *constants], summed, activation)
        else:
            windows.depthwise(writer, [rows, *constants], summed, activation, windows.Window((count, 1)), 1)
        writer.reshape(summed, target, orders.permuted(target_shape, left))

    writer.limited(operation, left, write)


def _reduce_real(writer: Writer, operation: Mean | Sum, order: orders.Order) -> None:
    """MEAN or SUM."""
    options = schema.ReducerOptionsT()
    options.keepDims = operation.keepdim
    axes = writer.numbers([order.index(dim) for dim in operation.dims])
    tensor = writer.read(operation.inputs[0], order)
    kind = "MEAN" if isinstance(operation, Mean) else "SUM"

    def write(target: int, _: int) -> None:
        writer.model.operator(kind, [tensor, axes], [target], options)

    left = order if operation.keepdim else orders.without(order, operation.dims)
    writer.limited(operation, left, write, fuses=False)


def fully_connected(writer: Writer, operands: list[int], target: int, activation: int) -> None:
    """FULLY_CONNECTED of (input, weight, bias), all but the last dimension kept."""
    options = schema.FullyConnectedOptionsT()
    options.keepNumDims, options.fusedActivationFunction = True, activation
    writer.model.operator("FULLY_CONNECTED", operands, [target], options)


def _left(operation: Mean | Sum, order: orders.Order) -> orders.Order:
    """The order of the dimensions that a reduction leaves, those of size 1 with them where they stay."""
    if not operation.keepdim:
        return orders.without(order, operation.dims)
    return order


def weight_and_bias(
    writer: Writer, operation: WeightedOperation, kernel: numpy.ndarray, axis: int, bits: int = 8
) -> list[int]:
    """Tensors of the weight and the bias. kernel: integers, as the operator has them, outputs along `axis`."""
    name, scale = operation.name, writer.scale(operation.inputs[0])
    scales = operation.weight.scale if writer.real else channel_scales(writer.program, operation)
    units = torch.tensor(scale, dtype=torch.float32) * scales
    if writer.real:
        shape = [1] * kernel.ndim
        shape[axis] = -1
        weight = kernel.astype(numpy.float32) * array_of(scales).reshape(shape)
        bias = array_of(operation.bias.float() * units)
        return [writer.model.constant(f"{name}/weight", weight), writer.model.constant(f"{name}/bias", bias)]
    scaling = Scaling(tuple(scales.tolist()), 0, axis)
    if bits < 8:
        weight = writer.model.packed_constant(f"{name}/weight", kernel, bits, scaling)
    else:
        weight = writer.model.constant(f"{name}/weight", kernel, scaling)
    bias = array_of(operation.bias).astype(_bias_type(writer, operation))
    return [weight, writer.model.constant(f"{name}/bias", bias, Scaling(tuple(units.tolist())))]


def _bias_type(writer: Writer, operation: ComputingOperation) -> type:
    """Kernels of 16-bit codes add 64-bit numbers."""
    return numpy.int64 if writer.is_wide(operation.inputs[0]) else numpy.int32


def _ones(writer: Writer, operation: ComputingOperation, shape: tuple[int, ...], share: float) -> list[int]:
    """A weight of ones that stand for `share`, and a bias of zeros."""
    channels = shape[-1] if len(shape) == 4 else shape[0]
    axis = 3 if len(shape) == 4 else 0
    if writer.real:
        weight = writer.model.constant("ones", numpy.full(shape, share, numpy.float32))
        return [weight, writer.model.constant("zeros", numpy.zeros(channels, numpy.float32))]
    scale = writer.scale(operation.inputs[0])
    unit = float32(float32(scale) * float32(share))
    weight = writer.model.constant("ones", numpy.ones(shape, numpy.int8), Scaling((share,) * channels, 0, axis))
    zeros = numpy.zeros(channels, _bias_type(writer, operation))
    bias = writer.model.constant("zeros", zeros, Scaling((unit,) * channels))
    return [weight, bias]
