"""Windows over one or two spatial dimensions, channels last: padding, convolutions, depthwise convolutions, pools.

One spatial dimension is two, the first of size 1.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy
from torch import Tensor

from qat.emitters.litert import orders
from qat.emitters.litert.forms import cuts
from qat.emitters.litert.model import schema
from qat.emitters.litert.writer import Writer
from qat.integer.operations import AveragePool, ComputingOperation, Conv, MaxPool

Pair = tuple[int, int]
#: How many channels of 8 bits XNNPACK's kernels take at once, with VNNI on x86 and I8MM on ARM.
_BLOCK = 8
SAME, VALID = schema.Padding.SAME, schema.Padding.VALID


@dataclass(frozen=True)
class Window:
    """size, stride, dilation: of both dimensions; padding: (before, after) of each."""

    size: Pair
    stride: Pair = (1, 1)
    padding: tuple[Pair, Pair] = ((0, 0), (0, 0))
    dilation: Pair = (1, 1)

    @classmethod
    def of(cls, size, stride, padding, dilation) -> "Window":
        """Of one or two dimensions."""
        pads = tuple(tuple(pair) for pair in padding)
        lead = 2 - len(size)
        one = (1,) * lead
        return cls((*one, *size), (*one, *stride), ((0, 0),) * lead + pads, (*one, *dilation))

    def counts(self, spatial: Pair) -> Pair:
        """How many windows there are."""
        extents = zip(spatial, self.size, self.stride, self.padding, self.dilation, strict=True)
        return tuple(
            (size + sum(pads) - spread * (kernel - 1) - 1) // step + 1 for size, kernel, step, pads, spread in extents
        )

    def kind(self, spatial: Pair) -> int | None:
        """The padding as operators know it, of an input of this size; None where it takes an operator of its own."""
        if not any(map(any, self.padding)):
            return VALID
        for size, kernel, step, pads, spread in zip(
            spatial, self.size, self.stride, self.padding, self.dilation, strict=True
        ):
            total = max((math.ceil(size / step) - 1) * step + spread * (kernel - 1) + 1 - size, 0)
            if pads != (total // 2, total - total // 2):
                return None
        return SAME


def is_depthwise(operation: Conv) -> bool:
    """Whether each channel has kernels of its own."""
    return operation.groups > 1 and operation.weight.codes.shape[1] == 1


def flat_weight(kernel: Tensor) -> Tensor:
    """(outputs, inputs, height, width) of a kernel over one or two dimensions."""
    return kernel if kernel.dim() == 4 else kernel.unsqueeze(2)


def sizes_of(writer: Writer, name: str) -> tuple[int, int, int]:
    """(height, width, channels) of a value (channels, *spatial)."""
    shape = writer.shape(name)
    return (*((1,) * (3 - len(shape))), *shape[1:], shape[0])


def source_of(writer: Writer, name: str) -> tuple[int, tuple[int, int, int]]:
    """The tensor (N, height, width, channels) of a value (channels, *spatial), and (height, width, channels)."""
    shape, sizes = writer.shape(name), sizes_of(writer, name)
    tensor = writer.read(name, orders.channels_last(len(shape)))
    if len(shape) == 2:
        flat, tensor = tensor, writer.like(name, f"{name}/flat", (1, *sizes))
        writer.reshape(flat, tensor, (1, *sizes))
    return tensor, sizes


def padded(writer: Writer, name: str, tensor: int, window: Window) -> tuple[int, int]:
    """(tensor, padding that the operator has) of what the windows lie in."""
    kind = window.kind(writer.model.shape(tensor)[1:3])
    if kind is not None:
        return tensor, kind
    return widened(writer, name, tensor, window.padding), VALID


def widened(writer: Writer, name: str, tensor: int, pads: tuple[Pair, Pair]) -> int:
    """A tensor (N, height, width, channels) of the value `name` with zeros around it. PAD, where there are any."""
    if not any(map(any, pads)):
        return tensor
    _, height, width, channels = writer.model.shape(tensor)
    wide = writer.like(name, f"{name}/padded", (1, height + sum(pads[0]), width + sum(pads[1]), channels))
    writer.model.operator("PAD", [tensor, writer.numbers(((0, 0), *pads, (0, 0)))], [wide], schema.PadOptionsT())
    return wide


@dataclass(frozen=True)
class Strip:
    """A convolution over strips instead of columns: as many columns as the stride are the channels of one strip.

    That moves no code. Kernels multiply blocks of `_BLOCK` channels, which fewer channels leave empty for the most
    part. window: over strips. columns: in each. first: weights of 0 before the first column of the kernel.
    """

    window: Window
    columns: int
    first: int

    @classmethod
    def of(cls, window: Window, sizes: tuple[int, int, int]) -> "Strip | None":
        """None where a kernel would have no fewer blocks. sizes: (height, width, channels) of the input."""
        (height, width), (down, step), channels = window.size, window.stride, sizes[2]
        if step == 1 or window.dilation[1] > 1 or sizes[1] % step:
            return None
        before = window.padding[1][0]
        first = -before % step
        strips, left = -(-(first + width) // step), (before + first) // step
        right = window.counts(sizes[:2])[1] - 1 + strips - left - sizes[1] // step
        if right < 0 or strips * -(-step * channels // _BLOCK) >= width * -(-channels // _BLOCK):
            return None
        narrow = Window((height, strips), (down, 1), (window.padding[0], (left, right)), window.dilation)
        return cls(narrow, step, first)

    def weight(self, weight: numpy.ndarray) -> numpy.ndarray:
        """The kernel over strips, from that over columns, (outputs, height, width, channels)."""
        outputs, height, width, channels = weight.shape
        strips = self.window.size[1]
        last = strips * self.columns - self.first - width
        wide = numpy.pad(weight, ((0, 0), (0, 0), (self.first, last), (0, 0)))
        return wide.reshape(outputs, height, strips, self.columns * channels)

    def source(self, writer: Writer, name: str, tensor: int) -> int:
        """The strips of a tensor of the value `name`."""
        _, height, width, channels = writer.model.shape(tensor)
        return cuts.in_shape(writer, name, tensor, (1, height, width // self.columns, self.columns * channels))


def finish(
    writer: Writer, operation: ComputingOperation, counts: Pair, write: Callable[[int, int], None], fuses: bool = True
) -> None:
    """The result of windows, (N, height, width, channels) as `write` makes it, as a value of the operation."""
    shape = writer.shape(operation.output)
    order = orders.channels_last(len(shape))
    if len(shape) == 3:
        writer.limited(operation, order, write, fuses)
        return

    def flattened(target: int, activation: int) -> None:
        high = writer.model.tensor(
            f"{operation.name}/high",
            (1, *counts, shape[0]),
            writer.dtype(operation.output),
            writer.model.scaling(target),
        )
        write(high, activation)
        writer.reshape(high, target, orders.permuted(shape, order))

    writer.limited(operation, order, flattened, fuses)


def convolve(
    writer: Writer,
    operation: Conv | AveragePool,
    window: Window,
    constants: list[int],
    multiples: int | None,
    strip: Strip | None = None,
) -> None:
    """A convolution with (weight, bias). multiples: outputs per channel of a depthwise one, else None.

    strip: what the weight is over instead of `window`.
    """
    source = operation.inputs[0]
    tensor, sizes = source_of(writer, source)
    counts = window.counts(sizes[:2])
    if strip is not None:
        tensor, window = strip.source(writer, source, tensor), strip.window
    tensor, padding = padded(writer, source, tensor, window)

    def write(target: int, activation: int) -> None:
        operands = [tensor, *constants]
        if multiples is None:
            options = schema.Conv2DOptionsT()
            _describe(options, window, padding, activation)
            writer.model.operator("CONV_2D", operands, [target], options)
        else:
            depthwise(writer, operands, target, activation, window, multiples, padding)

    finish(writer, operation, counts, write)


def depthwise(
    writer: Writer,
    operands: list[int],
    target: int,
    activation: int,
    window: Window,
    multiples: int,
    padding: int = VALID,
) -> None:
    """DEPTHWISE_CONV_2D of (input, weight, bias)."""
    options = schema.DepthwiseConv2DOptionsT()
    _describe(options, window, padding, activation)
    options.depthMultiplier = multiples
    writer.model.operator("DEPTHWISE_CONV_2D", operands, [target], options)


def average_pool(writer: Writer, operation: AveragePool) -> None:
    """AVERAGE_POOL_2D of real numbers, without padding."""
    window = Window.of(operation.kernel_size, operation.stride, operation.padding, (1,) * len(operation.kernel_size))
    tensor, sizes = source_of(writer, operation.inputs[0])
    options = schema.Pool2DOptionsT()
    options.padding, (options.strideH, options.strideW) = VALID, window.stride
    options.filterHeight, options.filterWidth = window.size

    def write(target: int, activation: int) -> None:
        options.fusedActivationFunction = activation
        writer.model.operator("AVERAGE_POOL_2D", [tensor], [target], options)

    finish(writer, operation, window.counts(sizes[:2]), write)


def max_pool(writer: Writer, operation: MaxPool) -> None:
    """MAX_POOL_2D; what pads never wins: the lowest number is put there by PADV2."""
    source, name = operation.inputs[0], operation.output
    tensor, sizes = source_of(writer, source)
    shape = writer.shape(source)
    padding = operation.full_padding(shape)
    window = Window.of(operation.kernel_size, operation.stride, padding, operation.dilation)
    counts = window.counts(sizes[:2])
    kind = window.kind(sizes[:2])
    if kind is None:
        (top, bottom), (left, right) = window.padding
        wide = writer.like(source, f"{name}/padded", (1, sizes[0] + top + bottom, sizes[1] + left + right, sizes[2]))
        amounts = writer.numbers(((0, 0), (top, bottom), (left, right), (0, 0)))
        writer.model.operator("PADV2", [tensor, amounts, writer.lowest(source)], [wide], schema.PadV2OptionsT())
        tensor, kind = wide, VALID
    options = schema.Pool2DOptionsT()
    options.padding, (options.strideH, options.strideW) = kind, window.stride
    options.filterHeight, options.filterWidth = window.size
    target_shape = writer.shape(name)
    order = orders.channels_last(len(target_shape))
    target = writer.made(name, order)
    if len(target_shape) == 3:
        writer.model.operator("MAX_POOL_2D", [tensor], [target], options)
        return
    high = writer.like(name, f"{name}/high", (1, *counts, target_shape[0]))
    writer.model.operator("MAX_POOL_2D", [tensor], [high], options)
    writer.reshape(high, target, orders.permuted(target_shape, order))


def _describe(options, window: Window, padding: int, activation: int) -> None:
    options.padding, options.fusedActivationFunction = padding, activation
    options.strideH, options.strideW = window.stride
    options.dilationHFactor, options.dilationWFactor = window.dilation
