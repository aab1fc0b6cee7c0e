"""Arithmetic element by element, of operands that broadcast."""

import torch

from qat.emitters.c.forms.rescale import Rescaling, rescaling_of
from qat.emitters.c.forms.tables import LOOK_UP
from qat.emitters.c.kernels import (
    CLAMPED,
    FARTHEST,
    FLOAT_ROUNDING,
    PLACES,
    RESCALED,
    ROUNDED_ONCE,
    SHIFT_BASE,
    WALK,
    WIDE_PLACES,
    Kernel,
)
from qat.emitters.c.types import S64, narrowest
from qat.emitters.c.views import View
from qat.emitters.c.writer import Writer
from qat.integer.fixed_point import NARROW_BITS, requantize_once, requantize_product
from qat.integer.kernels import elementwise
from qat.integer.operations import Add, ComputingOperation, Mul, Requantize
from qat.integer.values import Grid

ADD = Kernel(
    "add",
    """
/* (a * first + b * second + start) / 2^shift, ties to even, less `offset`. */
static void add_@a_@b_@y_@s(const walk_t *walk, @S first, @S second, @S start, int32_t shift, int32_t offset,
        int32_t low, int32_t high, const @A *restrict a, const @B *restrict b, @Y *restrict y)
{
    const int32_t last = walk->rank - 1, count = walk->sizes[last];
    const int32_t y_step = walk->strides[0][last], a_step = walk->strides[1][last], b_step = walk->strides[2][last];
    const @S half = ((@S)1 << shift >> 1) - (shift > 0), odd = shift > 0;
    place_t place = {{0}, {0}};
    int32_t i;
    do {
        const @A *one = a + place.offset[1];
        const @B *other = b + place.offset[2];
        @Y *to = y + place.offset[0];
        for (i = 0; i < count; i++) {
            const @S total = one[i * a_step] * first + other[i * b_step] * second + start;
            const @S steps = (total + ((total >> shift) & odd) + half) >> shift;
            to[i * y_step] = (@Y)clamped((int32_t)steps - offset, low, high);
        }
    } while (walk_on(walk, &place));
}
""",
    "abys",
    needs=((WALK, ""), (CLAMPED, "")),
)

_MULTIPLY = """
/* (a - first) * (b - second), rescaled. */
static void product_@a_@b_@y(const walk_t *walk, int32_t first, int32_t second, int32_t multiplier, int32_t shift,
        int32_t zero_point, int32_t low, int32_t high, const @A *restrict a, const @B *restrict b, @Y *restrict y)
{
    const int32_t last = walk->rank - 1, count = walk->sizes[last];
    const int32_t y_step = walk->strides[0][last], a_step = walk->strides[1][last], b_step = walk->strides[2][last];
    place_t place = {{0}, {0}};
    int32_t i;
    do {
        const @A *one = a + place.offset[1];
        const @B *other = b + place.offset[2];
        @Y *to = y + place.offset[0];
        for (i = 0; i < count; i++) {
            const int32_t product = ((int32_t)one[i * a_step] - first) * ((int32_t)other[i * b_step] - second);
            to[i * y_step] = (@Y)clamped(rescaled(product, multiplier, shift) + zero_point, low, high);
        }
    } while (walk_on(walk, &place));
}
"""

PRODUCT_AS_FLOAT = Kernel(
    "scaled_as_float",
    """
/* round(fl32(fl32(product * mantissa / 2^(shift - BASE)) + zero)), ties to even: what float32 computes of a product. */
static inline int32_t scaled_as_float(int32_t product, int32_t mantissa, int32_t shift, int32_t zero, int32_t places)
{
    const int32_t exponent = shift > BASE + 62 ? -62 : BASE - shift, below = exponent < 0 ? exponent : 0;
    const int32_t fine = below < -38 ? -38 : below;
    int64_t scaled;
    int32_t steps;
    if (rounded_once(product, mantissa, -exponent, places, &steps))
        return steps + zero;
    scaled = as_float_stores(as_float_stores(product) * mantissa);
    scaled = halved_to_even(scaled, fine - below) * ((int64_t)1 << (exponent > 0 ? exponent : 0));
    scaled = halved_to_even(as_float_stores(scaled + zero * ((int64_t)1 << -fine)), -fine);
    return (int32_t)(scaled < -LIMIT ? -LIMIT : scaled > LIMIT ? LIMIT : scaled);
}
""".replace("BASE", str(SHIFT_BASE)).replace("LIMIT", str(FARTHEST)),
    needs=((FLOAT_ROUNDING, ""), (ROUNDED_ONCE, "")),
)

MULTIPLY = {
    False: Kernel("product", _MULTIPLY, "aby", ((WALK, ""), (CLAMPED, ""), (RESCALED, ""))),
    True: Kernel(
        "product_as_float",
        _MULTIPLY.replace("product_@a", "product_as_float_@a")
        .replace("int32_t zero_point,", "int32_t zero, int32_t offset, int32_t places,")
        .replace("rescaled(product, multiplier, shift) + zero_point",
                 "scaled_as_float(product, multiplier, shift, zero, places) - offset"),
        "aby",
        ((WALK, ""), (CLAMPED, ""), (PRODUCT_AS_FLOAT, "")),
    ),
}  # fmt: skip

SCALE = Kernel(
    "scale",
    """
/* (x - zero) * multiplier / 2^shift + zero_point; a negative factor of the operation is part of the multiplier. */
static void scale_@x_@y(const walk_t *walk, int32_t zero, int32_t sign, int32_t multiplier, int32_t shift,
        int32_t zero_point, int32_t low, int32_t high, const @X *restrict x, @Y *restrict y)
{
    const int32_t last = walk->rank - 1, count = walk->sizes[last];
    const int32_t y_step = walk->strides[0][last], x_step = walk->strides[1][last];
    place_t place = {{0}, {0}};
    int32_t i;
    do {
        const @X *from = x + place.offset[1];
        @Y *to = y + place.offset[0];
        for (i = 0; i < count; i++) {
            const int32_t steps = rescaled(((int32_t)from[i * x_step] - zero) * sign, multiplier, shift);
            to[i * y_step] = (@Y)clamped(steps + zero_point, low, high);
        }
    } while (walk_on(walk, &place));
}
""",
    "xy",
    needs=((WALK, ""), (CLAMPED, ""), (RESCALED, "")),
)

LIMIT = Kernel(
    "limit",
    """
static void limit_@x_@y(const walk_t *walk, int32_t low, int32_t high, const @X *restrict x, @Y *restrict y)
{
    const int32_t last = walk->rank - 1, count = walk->sizes[last];
    const int32_t y_step = walk->strides[0][last], x_step = walk->strides[1][last];
    place_t place = {{0}, {0}};
    int32_t i;
    do {
        const @X *from = x + place.offset[1];
        @Y *to = y + place.offset[0];
        for (i = 0; i < count; i++)
            to[i * y_step] = (@Y)clamped(from[i * x_step], low, high);
    } while (walk_on(walk, &place));
}
""",
    "xy",
    needs=((WALK, ""), (CLAMPED, "")),
)


def operands_of(writer: Writer, operation: ComputingOperation) -> tuple[View, list[View]]:
    """The result, and the operands spread to its shape."""
    views = [writer.view(name) for name in operation.inputs]
    shape = writer.shape(operation.output)
    target = writer.new(operation.output, writer.order_like(views, shape))
    return target, [view.expanded(shape) for view in views]


def add(writer: Writer, operation: Add) -> None:
    """`fixed_point.requantize_sum`."""
    target, operands = operands_of(writer, operation)
    factors, grid = operation.factors, writer.grid(operation.output)
    grids = [writer.grid(name) for name in operation.inputs]
    start = (grid.zero_point + grid.unsigned_offset) << factors.shift
    largest = abs(start)
    for factor, source in zip((factors.first, factors.second), grids, strict=True):
        start -= factor * source.zero_point
        largest += factor * (max(-source.quant_min, source.quant_max) + abs(source.zero_point))
    sums = narrowest(-largest - 2**factors.shift, largest + 2**factors.shift)
    if factors.shift > 30:
        sums = S64
    writer.call(
        ADD,
        (*(operand.ctype for operand in operands), target.ctype, sums),
        writer.walk([target, *operands]),
        factors.first,
        factors.second,
        start,
        factors.shift,
        grid.unsigned_offset,
        operation.clamp_min,
        operation.clamp_max,
        *operands,
        target,
    )


def multiply(writer: Writer, operation: Mul) -> None:
    """`fixed_point.requantize_product` of products."""
    target, operands = operands_of(writer, operation)
    rescaling = rescaling_of(writer, operation, requantize_product)
    writer.call(
        MULTIPLY[rescaling.as_float],
        (*(operand.ctype for operand in operands), target.ctype),
        writer.walk([target, *operands]),
        *(writer.grid(name).zero_point for name in operation.inputs),
        rescaling.factors.multipliers[0],
        rescaling.factors.shifts[0],
        *_zero(writer.grid(operation.output), rescaling),
        operation.clamp_min,
        operation.clamp_max,
        *operands,
        target,
    )


def requantize(writer: Writer, operation: Requantize) -> None:
    """A clamp alone, one rounding, or where that is not exact a table of the results."""
    source, grid = writer.grid(operation.inputs[0]), writer.grid(operation.output)
    target, operands = operands_of(writer, operation)
    kinds = operands[0].ctype, target.ctype
    limits = operation.clamp_min, operation.clamp_max
    if operation.is_clamp(source, grid):
        writer.call(LIMIT, kinds, writer.walk([target, *operands]), *limits, *operands, target)
        return
    wide = source.bits > NARROW_BITS
    rescaling = rescaling_of(writer, operation, requantize_once if wide else requantize_product)
    if rescaling.as_float and not wide:
        _look_up(writer, operation, target, operands[0])
        return
    writer.call(
        SCALE,
        kinds,
        writer.walk([target, *operands]),
        source.zero_point,
        1 if operation.factor > 0 else -1,
        rescaling.factors.multipliers[0],
        rescaling.factors.shifts[0],
        grid.zero_point,
        *limits,
        *operands,
        target,
    )


def _zero(grid: Grid, rescaling: Rescaling) -> list[int]:
    """Where results count from: their zero point, or with the roundings of float32 that of codes counted from 0, what
    is taken off again, and how near a tie the roundings differ."""
    if not rescaling.as_float:
        return [grid.zero_point]
    places = PLACES if grid.bits <= NARROW_BITS else WIDE_PLACES
    return [grid.zero_point + grid.unsigned_offset, grid.unsigned_offset, places]


def _look_up(writer: Writer, operation: Requantize, target: View, operand: View) -> None:
    """The results of all codes, which the interpreter's own kernel makes."""
    source, grid = writer.grid(operation.inputs[0]), writer.grid(operation.output)
    codes = torch.arange(source.quant_min, source.quant_max + 1).to(source.dtype)
    table = writer.array("table", target.ctype, elementwise.requantize(operation, codes[None], source, grid))
    walk = writer.walk([target, operand, View(operand.buffer, target.shape, (0,) * len(target.shape))])
    writer.call(LOOK_UP, (operand.ctype, target.ctype), walk, source.quant_min, operand, table, target)
