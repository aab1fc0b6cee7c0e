"""Codes in another place. What strides can say is another view of the same codes, and costs nothing."""

import math

from qat.emitters.c.kernels import WALK, Kernel
from qat.emitters.c.types import S32
from qat.emitters.c.views import View, plain
from qat.emitters.c.writer import Writer
from qat.integer.operations import Concatenate, Expand, Pad, Reshape, Slice, Take, Transpose

COPY = Kernel(
    "copy",
    """
static void copy_@x(const walk_t *walk, const @X *restrict x, @X *restrict y)
{
    const int32_t last = walk->rank - 1, count = walk->sizes[last];
    const int32_t y_step = walk->strides[0][last], x_step = walk->strides[1][last];
    place_t place = {{0}, {0}};
    int32_t i;
    do {
        const @X *from = x + place.offset[1];
        @X *to = y + place.offset[0];
        if (x_step == 1 && y_step == 1)
            for (i = 0; i < count; i++)
                to[i] = from[i];
        else
            for (i = 0; i < count; i++)
                to[i * y_step] = from[i * x_step];
    } while (walk_on(walk, &place));
}
""",
    "x",
    needs=((WALK, ""),),
)

FILL = Kernel(
    "fill",
    """
static void fill_@x(int32_t count, @X code, @X *y)
{
    int32_t i;
    for (i = 0; i < count; i++)
        y[i] = code;
}
""",
    "x",
)

TAKE = Kernel(
    "take",
    """
/* y[i] = x[indices[i]] along one dimension, whose strides are x_step and y_step; the walk is over all others. */
static void take_@x(const walk_t *walk, const int32_t *indices, int32_t count, int32_t x_step, int32_t y_step,
        const @X *x, @X *y)
{
    int32_t i;
    for (i = 0; i < count; i++)
        copy_@x(walk, x + indices[i] * x_step, y + i * y_step);
}
""",
    "x",
    needs=((COPY, "x"),),
)


def concatenate(writer: Writer, operation: Concatenate) -> None:
    """Copies, one behind another."""
    axis = operation.dim - 1
    views = [writer.view(name) for name in operation.inputs]
    shape = writer.shape(operation.output)
    orders = [view.order for view in views if view.order is not None]
    target = writer.new(operation.output, orders[0] if orders else None)
    starts, steps = [0] * len(shape), [1] * len(shape)
    for view in views:
        writer.copy(view, target.cut(starts, view.shape, steps))
        starts[axis] += view.shape[axis]


def reshape(writer: Writer, operation: Reshape) -> None:
    """A view where strides allow it."""
    name, shape = operation.inputs[0], writer.shape(operation.output)
    seen = writer.view(name).reshaped(shape)
    if seen is None:
        seen = writer.ordered(name, plain(len(writer.shape(name)))).reshaped(shape)
    writer.put(operation.output, seen)


def transpose(writer: Writer, operation: Transpose) -> None:
    """A view."""
    dims = [dim - 1 for dim in operation.permutation[1:]]
    writer.put(operation.output, writer.view(operation.inputs[0]).permuted(dims))


def cut(writer: Writer, operation: Slice) -> None:
    """A view."""
    view = writer.view(operation.inputs[0])
    writer.put(operation.output, view.cut(operation.starts, writer.shape(operation.output), operation.steps))


def expand(writer: Writer, operation: Expand) -> None:
    """A view."""
    writer.put(operation.output, writer.view(operation.inputs[0]).expanded(writer.shape(operation.output)))


def pad(writer: Writer, operation: Pad) -> None:
    """Zero points, and the codes among them."""
    view, grid = writer.view(operation.inputs[0]), writer.grid(operation.output)
    target = writer.new(operation.output, view.order)
    writer.call(FILL, (target.ctype,), math.prod(target.shape), grid.zero_point, target)
    inside = target.cut([before for before, _ in operation.amounts], view.shape, [1] * len(view.shape))
    writer.copy(view, inside)


def take(writer: Writer, operation: Take) -> None:
    """A view of entries that are equally far apart, else copies of each."""
    view, indices, axis = writer.view(operation.inputs[0]), operation.indices.tolist(), operation.dim - 1
    steps = {after - before for before, after in zip(indices, indices[1:], strict=False)}
    if len(steps) < 2:
        starts, apart = [0] * len(view.shape), [1] * len(view.shape)
        starts[axis], apart[axis] = indices[0], next(iter(steps), 1)
        writer.put(operation.output, view.cut(starts, writer.shape(operation.output), apart))
        return
    target = writer.new(operation.output, view.order)
    entry = [_entry(part, axis) for part in (target, view)]
    writer.call(
        TAKE,
        (view.ctype,),
        writer.walk(entry),
        writer.array("indices", S32, indices),
        len(indices),
        view.strides[axis],
        target.strides[axis],
        view,
        target,
    )


def _entry(view: View, axis: int) -> View:
    """The first entry of a view along one dimension."""
    counts = [1 if dim == axis else size for dim, size in enumerate(view.shape)]
    return view.cut([0] * len(counts), counts, [1] * len(counts))
