"""Results that are looked up: functions of one value, and rows of an embedding."""

import math

from qat.emitters.c.forms.packed import UNPACK, packed_rows
from qat.emitters.c.kernels import WALK, Kernel
from qat.emitters.c.views import View, plain
from qat.emitters.c.writer import Writer
from qat.integer.operations import Embedding, Table

LOOK_UP = Kernel(
    "look_up",
    """
/* The entry of the table for each code; the third operand of the walk is the table of a channel. */
static void look_up_@x_@y(const walk_t *walk, int32_t lowest, const @X *restrict x, const @Y *restrict table,
        @Y *restrict y)
{
    const int32_t last = walk->rank - 1, count = walk->sizes[last];
    const int32_t y_step = walk->strides[0][last], x_step = walk->strides[1][last];
    const int32_t table_step = walk->strides[2][last];
    place_t place = {{0}, {0}};
    int32_t i;
    do {
        const @X *from = x + place.offset[1];
        const @Y *entries = table + place.offset[2];
        @Y *to = y + place.offset[0];
        for (i = 0; i < count; i++)
            to[i * y_step] = entries[i * table_step + from[i * x_step] - lowest];
    } while (walk_on(walk, &place));
}
""",
    "xy",
    needs=((WALK, ""),),
)


EMBED = Kernel(
    "embed",
    """
/* Rows of a weight, chosen by indices. */
static void embed(const packed_t *rows, int32_t count, const int32_t *indices, int8_t *y)
{
    int32_t i, j;
    for (i = 0; i < count; i++, y += rows->size) {
        const int8_t *row = rows_of(rows, indices[i], 1, y);
        if (row != y)
            for (j = 0; j < rows->size; j++)
                y[j] = row[j];
    }
}
""",
    needs=((UNPACK, ""),),
)


def table(writer: Writer, operation: Table) -> None:
    """A table for all channels, or one for each."""
    view = writer.view(operation.inputs[0])
    target = writer.new(operation.output, view.order)
    entries = operation.codes
    steps = [0] * len(view.shape)
    if entries.dim() == 2:
        steps[0] = entries.shape[1]
    constant = writer.array("table", target.ctype, entries)
    walk = writer.walk([target, view, View(view.buffer, view.shape, tuple(steps))])
    lowest = writer.grid(operation.inputs[0]).quant_min
    writer.call(LOOK_UP, (view.ctype, target.ctype), walk, lowest, view, constant, target)


def embedding(writer: Writer, operation: Embedding) -> None:
    """Rows of the weight, unpacked to their place."""
    source = operation.inputs[0]
    view = writer.ordered(source, plain(len(writer.shape(source))))
    target = writer.new(operation.output)
    rows = writer.record("rows", "packed_t", packed_rows(writer, operation.weight, operation.weight.codes))
    writer.call(EMBED, (), rows, math.prod(view.shape), view, target)
