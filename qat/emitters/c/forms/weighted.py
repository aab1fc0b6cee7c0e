"""Sums of products with constant weights, which stay packed in the constants and are unpacked a few rows at a time."""

import math

import torch

from qat.emitters.c.constants import Pointer
from qat.emitters.c.forms.packed import UNPACK, WHOLE_BITS, packed_rows
from qat.emitters.c.forms.rescale import (
    RESCALE,
    RESCALE_AS_FLOAT,
    RESCALE_PART,
    RESCALE_TYPE,
    VectorRescaling,
    rescale_fields,
    vector_rescaling_of,
)
from qat.emitters.c.forms.windows import GATHER, INSIDE, WINDOW, window_fields
from qat.emitters.c.kernels import Kernel
from qat.emitters.c.types import S8, S32, type_of
from qat.emitters.c.views import channels_last, plain
from qat.emitters.c.writer import Writer
from qat.errors import ExportError
from qat.integer.operations import Conv, Linear, WeightedOperation
from qat.integer.operations.base import INT32_MAX

#: Rows of packed weights that are unpacked together, each for one output channel: every window is gathered once for
#: all of them.
BLOCK = 16

LAYER = Kernel(
    "layer_type",
    """
/* A layer with weights, one row for each output; `block` rows are unpacked at a time. */
typedef struct {
    packed_t rows;
    const int32_t *bias;
    int32_t outputs;
    int32_t block;
    int32_t zero_point;
    rescale_t rescale;
} layer_t;
""",
    needs=((UNPACK, ""), (RESCALE_TYPE, "")),
)

PRODUCTS = Kernel(
    "add_products",
    """
/* sums += products of `count` codes with those of four rows of weights, which lie `size` apart. Signed codes are raised
   by 128, since vectors multiply unsigned bytes by signed ones at once. */
static inline void add_products_@x(const @X *restrict x, const int8_t *restrict weights, int32_t size, int32_t count,
        int32_t *restrict sums)
{
    const int8_t *restrict w0 = weights, *restrict w1 = w0 + size, *restrict w2 = w1 + size, *restrict w3 = w2 + size;
    int32_t s0 = sums[0], s1 = sums[1], s2 = sums[2], s3 = sums[3], i;
    for (i = 0; i < count; i++) {
        s0 += ((int32_t)x[i] + @_x) * w0[i];
        s1 += ((int32_t)x[i] + @_x) * w1[i];
        s2 += ((int32_t)x[i] + @_x) * w2[i];
        s3 += ((int32_t)x[i] + @_x) * w3[i];
    }
    sums[0] = s0;
    sums[1] = s1;
    sums[2] = s2;
    sums[3] = s3;
}
""",
    "x",
)

MULTIPLY = Kernel(
    "multiply",
    """
/* sums[row] = bias[row] + x . row of weights; four rows at a time, so that x is read once for four. In pieces that
   vectors have no rest of: what is left behind the last 16 is taken with those before it, which count as nothing. */
static void multiply_@x(const @X *restrict x, const int8_t *restrict weights, int32_t size, int32_t rows,
        const int32_t *restrict bias, int32_t *restrict sums)
{
    const int32_t whole = size & ~31, rest = size & 15, apart = size < 16 || rest < 8;
    @X last[16];
    int32_t row, i;
    for (i = 0; i < 16; i++)
        last[i] = (@X)(apart || i < 16 - rest ? -@_x : x[size - 16 + i]);
    for (row = 0; row + 4 <= rows; row += 4, weights += 4 * size, sums += 4) {
        for (i = 0; i < 4; i++)
            sums[i] = bias[row + i];
        add_products_@x(x, weights, size, whole, sums);
        if (size & 16)
            add_products_@x(x + whole, weights + whole, size, 16, sums);
        if (!apart)
            add_products_@x(last, weights + size - 16, size, 16, sums);
        else if (rest)
            add_products_@x(x + size - rest, weights + size - rest, size, rest, sums);
    }
    for (; row < rows; row++, weights += size) {
        int32_t sum = bias[row];
        for (i = 0; i < size; i++)
            sum += ((int32_t)x[i] + @_x) * weights[i];
        *sums++ = sum;
    }
}
""",
    "x",
    needs=((PRODUCTS, "x"),),
)

_DENSE = """
/* A product with weights: `rows` rows of x, each of the layer's inputs, give as many rows of its outputs. */
static void dense_@x_@y(const layer_t *layer, int32_t rows, const @X *x, @Y *y, int8_t *unpacked, int32_t *sums)
{
    int32_t first, row;
    for (first = 0; first < layer->outputs; first += layer->block) {
        const int32_t rest = layer->outputs - first, count = rest < layer->block ? rest : layer->block;
        const int8_t *weights = rows_of(&layer->rows, first, count, unpacked);
        const rescale_t rescale = part_of(&layer->rescale, first, count);
        for (row = 0; row < rows; row++) {
            multiply_@x(x + row * layer->rows.size, weights, layer->rows.size, count, layer->bias + first, sums);
            rescale_@y(&rescale, sums, first, count, y + row * layer->outputs + first);
        }
    }
}
"""

_CONVOLVE = """
/* A convolution, channels last: each window is gathered to `columns`, once for a block of channels of a group. */
static void convolve_@x_@y(const window_t *window, const layer_t *layer, int32_t groups, const @X *x, @Y *y,
        int8_t *unpacked, @X *columns, int32_t *sums)
{
    const int32_t inputs = window->channels / groups, outputs = layer->outputs / groups;
    int32_t group, first, at[3];
    for (group = 0; group < groups; group++)
        for (first = 0; first < outputs; first += layer->block) {
            const int32_t rest = outputs - first, count = rest < layer->block ? rest : layer->block;
            const int32_t channel = group * outputs + first;
            const int8_t *weights = rows_of(&layer->rows, channel, count, unpacked);
            const rescale_t rescale = part_of(&layer->rescale, channel, count);
            @Y *to = y + channel;
            for (at[0] = 0; at[0] < window->windows[0]; at[0]++)
                for (at[1] = 0; at[1] < window->windows[1]; at[1]++)
                    for (at[2] = 0; at[2] < window->windows[2]; at[2]++, to += layer->outputs) {
                        gather_@x(window, x, at, group * inputs, inputs, (@X)layer->zero_point, columns);
                        multiply_@x(columns, weights, layer->rows.size, count, layer->bias + channel, sums);
                        rescale_@y(&rescale, sums, channel, count, to);
                    }
        }
}
"""

_DEPTHWISE = """
/* A convolution of each channel by itself: a row of weights is those of all channels at one place of the window. */
static void depthwise_@x_@y(const window_t *window, const layer_t *layer, const @X *x, @Y *y, int8_t *unpacked,
        int32_t *sums)
{
    const int32_t *kernel = window->kernel, channels = window->channels;
    const int8_t *weights = rows_of(&layer->rows, 0, kernel[0] * kernel[1] * kernel[2], unpacked);
    int32_t at[3], i, j, k;
    inside_t inside;
    for (at[0] = 0; at[0] < window->windows[0]; at[0]++)
        for (at[1] = 0; at[1] < window->windows[1]; at[1]++)
            for (at[2] = 0; at[2] < window->windows[2]; at[2]++, y += channels) {
                find_inside(window, at, &inside);
                for (i = 0; i < channels; i++)
                    sums[i] = layer->bias[i];
                for (i = inside.begin[0]; i < inside.end[0]; i++)
                    for (j = inside.begin[1]; j < inside.end[1]; j++)
                        for (k = inside.begin[2]; k < inside.end[2]; k++)
                            accumulate_@x(x + pixel_of(window, &inside, i, j, k),
                                weights + ((i * kernel[1] + j) * kernel[2] + k) * channels, channels,
                                layer->zero_point, sums);
                rescale_@y(&layer->rescale, sums, 0, channels, y);
            }
}
"""

ACCUMULATE = Kernel(
    "accumulate",
    """
static void accumulate_@x(const @X *restrict x, const int8_t *restrict weights, int32_t count, int32_t zero_point,
        int32_t *restrict sums)
{
    int32_t i;
    for (i = 0; i < count; i++)
        sums[i] += ((int32_t)x[i] - zero_point) * weights[i];
}
""",
    "x",
)


def _both(name: str, text: str, *needs: tuple[Kernel, str]) -> dict[bool, Kernel]:
    """A kernel with one rounding (False), and one with those of float32 (True)."""
    as_float = text.replace(f"{name}_@x", f"{name}_as_float_@x").replace("rescale_@y", "rescale_as_float_@y")
    return {
        False: Kernel(name, text, "xy", ((LAYER, ""), *needs, (RESCALE, "y"))),
        True: Kernel(f"{name}_as_float", as_float, "xy", ((LAYER, ""), *needs, (RESCALE_AS_FLOAT, "y"))),
    }


DENSE = _both("dense", _DENSE, (RESCALE_PART, ""), (MULTIPLY, "x"))
CONVOLVE = _both("convolve", _CONVOLVE, (RESCALE_PART, ""), (WINDOW, ""), (GATHER, "x"), (MULTIPLY, "x"))
DEPTHWISE = _both("depthwise", _DEPTHWISE, (INSIDE, ""), (ACCUMULATE, "x"))


def linear(writer: Writer, operation: Linear) -> None:
    """A dense layer for every row."""
    source = operation.inputs[0]
    view = writer.ordered(source, plain(len(writer.shape(source))))
    target = writer.new(operation.output)
    _dense(writer, operation, view, target, math.prod(view.shape[:-1]))


def convolution(writer: Writer, operation: Conv) -> None:
    """Depthwise, dense where windows are single places, else by gathered windows."""
    source, rank = operation.inputs[0], len(writer.shape(operation.inputs[0]))
    view = writer.ordered(source, channels_last(rank))
    target = writer.new(operation.output, channels_last(rank))
    weight = operation.weight.codes
    if operation.groups == view.shape[0] == len(weight) and weight.shape[1] == 1:
        _depthwise(writer, operation, view, target)
        return
    ones = (1,) * len(operation.kernel_size)
    if (
        operation.groups == 1
        and operation.kernel_size == operation.stride == ones
        and not any(map(sum, operation.padding))
    ):
        _dense(writer, operation, view, target, math.prod(view.shape[1:]))
        return
    rows = weight.movedim(1, -1).flatten(1)
    outputs, inputs = rows.shape
    block = _block(operation, outputs // operation.groups)
    rescaling = vector_rescaling_of(writer, operation)
    layer = _layer(writer, operation, rescaling, rows, _folded_bias(writer, operation), block)
    window = writer.record("window", "window_t", window_fields(view.shape, target.shape, operation))
    writer.call(
        CONVOLVE[rescaling.as_float],
        (view.ctype, target.ctype),
        window,
        layer,
        operation.groups,
        view,
        target,
        _unpacked(writer, operation, block * inputs),
        writer.scratch(view.ctype, inputs),
        writer.scratch(S32, block),
    )


def _dense(writer: Writer, operation: WeightedOperation, view, target, rows: int) -> None:
    weights = operation.weight.codes.flatten(1)
    outputs, inputs = weights.shape
    block = _block(operation, outputs)
    rescaling = vector_rescaling_of(writer, operation)
    layer = _layer(writer, operation, rescaling, weights, _folded_bias(writer, operation), block)
    kernel = DENSE[rescaling.as_float]
    unpacked = _unpacked(writer, operation, block * inputs)
    writer.call(kernel, (view.ctype, target.ctype), layer, rows, view, target, unpacked, writer.scratch(S32, block))


def _depthwise(writer: Writer, operation: Conv, view, target) -> None:
    weights = operation.weight.codes.flatten(1).T
    places, channels = weights.shape
    rescaling = vector_rescaling_of(writer, operation)
    layer = _layer(writer, operation, rescaling, weights, operation.bias.tolist(), channels)
    window = writer.record("window", "window_t", window_fields(view.shape, target.shape, operation))
    writer.call(
        DEPTHWISE[rescaling.as_float],
        (view.ctype, target.ctype),
        window,
        layer,
        view,
        target,
        _unpacked(writer, operation, places * channels),
        writer.scratch(S32, channels),
    )


def _block(operation: WeightedOperation, outputs: int) -> int:
    """How many rows of weights are used at a time."""
    return outputs if operation.weight.grid.bits == WHOLE_BITS else min(BLOCK, outputs)


def _unpacked(writer: Writer, operation: WeightedOperation, count: int):
    """Room for unpacked weights; None where they are read in their place."""
    return None if operation.weight.grid.bits == WHOLE_BITS else writer.scratch(S8, count)


def _folded_bias(writer: Writer, operation: WeightedOperation) -> list[int]:
    """The bias less zero point times sum of weights, so that codes are multiplied as they are, or raised."""
    grid = writer.grid(operation.inputs[0])
    raised = type_of(grid).raised
    kernel = operation.weight.kernel.flatten(1).to(torch.int64)
    folded = operation.bias.to(torch.int64) - (grid.zero_point + raised) * kernel.sum(1)
    largest = folded.abs() + kernel.abs().sum(1) * max(abs(grid.quant_min + raised), abs(grid.quant_max + raised))
    if int(largest.max()) > INT32_MAX:
        raise ExportError(
            f"{type(operation).__name__} {operation.name!r} (from {operation.source}) adds up to {int(largest.max())} "
            "before its zero point is taken off, beyond int32; give it fewer weight or activation bits."
        )
    return folded.tolist()


def _layer(
    writer: Writer, operation: WeightedOperation, rescaling: VectorRescaling, rows, bias: list[int], block: int
) -> Pointer:
    """The layer_t of rows of weight codes."""
    return writer.record(
        "layer",
        "layer_t",
        {
            "rows": packed_rows(writer, operation.weight, rows),
            "bias": writer.array("bias", S32, bias),
            "outputs": len(operation.weight.codes),
            "block": block,
            "zero_point": writer.grid(operation.inputs[0]).zero_point,
            "rescale": rescale_fields(writer, operation, rescaling),
        },
    )
