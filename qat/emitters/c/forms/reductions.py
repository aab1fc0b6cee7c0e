"""Many codes become one: sums, means and largest codes over whole dimensions."""

from qat.emitters.c.constants import Pointer
from qat.emitters.c.forms.rescale import rescaling_of
from qat.emitters.c.kernels import CLAMPED, RESCALED, RESCALED_AS_FLOAT, WALK, Kernel
from qat.emitters.c.views import View
from qat.emitters.c.writer import Writer
from qat.integer.operations import Max, Mean, Operation, Sum

_SUM_UP = """
/* Sums over the inner walk for each place of the outer one, rescaled; `zero` is what every element is too large by. */
static void sum_up_@x_@y(const walk_t *outer, const walk_t *inner, int32_t zero, int32_t multiplier, int32_t shift,
        int32_t zero_point, int32_t low, int32_t high, const @X *x, @Y *y)
{
    const int32_t last = inner->rank - 1, count = inner->sizes[last], step = inner->strides[0][last];
    place_t at = {{0}, {0}};
    do {
        place_t place = {{0}, {0}};
        int32_t sum = 0, i;
        do {
            const @X *from = x + at.offset[1] + place.offset[0];
            for (i = 0; i < count; i++)
                sum += (int32_t)from[i * step] - zero;
        } while (walk_on(inner, &place));
        y[at.offset[0]] = (@Y)clamped(rescaled(sum, multiplier, shift) + zero_point, low, high);
    } while (walk_on(outer, &at));
}
"""

SUM_UP = {
    False: Kernel("sum_up", _SUM_UP, "xy", ((WALK, ""), (CLAMPED, ""), (RESCALED, ""))),
    True: Kernel(
        "sum_up_as_float",
        _SUM_UP.replace("sum_up_@x", "sum_up_as_float_@x").replace("rescaled(sum", "rescaled_as_float(sum"),
        "xy",
        ((WALK, ""), (CLAMPED, ""), (RESCALED_AS_FLOAT, "")),
    ),
}

LARGEST = Kernel(
    "largest",
    """
/* The largest code of the inner walk for each place of the outer one. */
static void largest_@x(const walk_t *outer, const walk_t *inner, const @X *x, @X *y)
{
    const int32_t last = inner->rank - 1, count = inner->sizes[last], step = inner->strides[0][last];
    place_t at = {{0}, {0}};
    do {
        place_t place = {{0}, {0}};
        @X found = x[at.offset[1]];
        int32_t i;
        do {
            const @X *from = x + at.offset[1] + place.offset[0];
            for (i = 0; i < count; i++)
                found = found > from[i * step] ? found : from[i * step];
        } while (walk_on(inner, &place));
        y[at.offset[0]] = found;
    } while (walk_on(outer, &at));
}
""",
    "x",
    needs=((WALK, ""),),
)


def reduce(writer: Writer, operation: Mean | Sum) -> None:
    """Sums, rescaled."""
    view = writer.view(operation.inputs[0])
    target = writer.new(operation.output)
    rescaling = rescaling_of(writer, operation)
    writer.call(
        SUM_UP[rescaling.as_float],
        (view.ctype, target.ctype),
        *reduction_walks(writer, [target, view], operation.dims, operation),
        writer.grid(operation.inputs[0]).zero_point,
        rescaling.factors.multipliers[0],
        rescaling.factors.shifts[0],
        writer.grid(operation.output).zero_point,
        operation.clamp_min,
        operation.clamp_max,
        view,
        target,
    )


def largest(writer: Writer, operation: Max) -> None:
    """The largest code."""
    view = writer.view(operation.inputs[0])
    target = writer.new(operation.output)
    writer.call(
        LARGEST, (view.ctype,), *reduction_walks(writer, [target, view], operation.dims, operation), view, target
    )


def reduction_walks(
    writer: Writer, views: list[View], dims: tuple[int, ...], operation: Operation
) -> tuple[Pointer, Pointer]:
    """(over what stays: of the result and the operand, over what is reduced: of the operand).

    views: result and operand. dims: that are reduced, the batch is 0.
    """
    target, view = views
    inside = [dim - 1 for dim in dims]
    kept = [dim for dim in range(len(view.shape)) if dim not in inside]
    if len(target.shape) == len(view.shape):
        target = target.permuted(kept)
    outer = writer.walk([target, view.permuted(kept)], single=True)
    return outer, writer.walk([view.permuted(inside)])
