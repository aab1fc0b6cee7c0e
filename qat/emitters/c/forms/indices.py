"""Arithmetic of indices, int32 here: none reaches beyond 2^31 - 1."""

from qat.emitters.c.forms.elementwise import operands_of
from qat.emitters.c.forms.tables import LOOK_UP
from qat.emitters.c.kernels import WALK, Kernel
from qat.emitters.c.types import S32
from qat.emitters.c.views import View
from qat.emitters.c.writer import Writer
from qat.integer.operations import CumulativeSum, Gather, IndexProduct, IndexSum, IndexTable

_PAIRS = """
static void index_@NAME(const walk_t *walk, const int32_t *restrict a, const int32_t *restrict b, int32_t *restrict y)
{
    const int32_t last = walk->rank - 1, count = walk->sizes[last];
    const int32_t y_step = walk->strides[0][last], a_step = walk->strides[1][last], b_step = walk->strides[2][last];
    place_t place = {{0}, {0}};
    int32_t i;
    do {
        for (i = 0; i < count; i++)
            y[place.offset[0] + i * y_step] =
                a[place.offset[1] + i * a_step] @SIGN b[place.offset[2] + i * b_step];
    } while (walk_on(walk, &place));
}
"""

SUM, PRODUCT = (
    Kernel(f"index_{name}", _PAIRS.replace("@NAME", name).replace("@SIGN", sign), needs=((WALK, ""),))
    for name, sign in (("sum", "+"), ("product", "*"))
)

CUMULATE = Kernel(
    "cumulate",
    """
/* The sum of a row up to each of its entries. */
static void cumulate(const walk_t *walk, int32_t size, int32_t x_step, int32_t y_step, const int32_t *x, int32_t *y)
{
    place_t at = {{0}, {0}};
    do {
        int32_t sum = 0, i;
        for (i = 0; i < size; i++) {
            sum += x[at.offset[1] + i * x_step];
            y[at.offset[0] + i * y_step] = sum;
        }
    } while (walk_on(walk, &at));
}
""",
    needs=((WALK, ""),),
)

GATHER = Kernel(
    "pick",
    """
/* Along one dimension, where values lie `step` apart, the entry that each index names. */
static void pick_@x(const walk_t *walk, int32_t step, const @X *x, const int32_t *indices, @X *y)
{
    const int32_t last = walk->rank - 1, count = walk->sizes[last];
    const int32_t y_step = walk->strides[0][last], x_step = walk->strides[1][last], i_step = walk->strides[2][last];
    place_t place = {{0}, {0}};
    int32_t i;
    do {
        for (i = 0; i < count; i++)
            y[place.offset[0] + i * y_step] =
                x[place.offset[1] + i * x_step + indices[place.offset[2] + i * i_step] * step];
    } while (walk_on(walk, &place));
}
""",
    "x",
    needs=((WALK, ""),),
)


def table(writer: Writer, operation: IndexTable) -> None:
    """The table's entry for each index."""
    view = writer.view(operation.inputs[0])
    target = writer.new(operation.output, view.order)
    walk = writer.walk([target, view, View(view.buffer, view.shape, (0,) * len(view.shape))])
    writer.call(LOOK_UP, (S32, S32), walk, 0, view, writer.array("table", S32, operation.codes), target)


def add(writer: Writer, operation: IndexSum) -> None:
    """Sums."""
    target, operands = operands_of(writer, operation)
    writer.call(SUM, (), writer.walk([target, *operands]), *operands, target)


def multiply(writer: Writer, operation: IndexProduct) -> None:
    """Products."""
    target, operands = operands_of(writer, operation)
    writer.call(PRODUCT, (), writer.walk([target, *operands]), *operands, target)


def cumulate(writer: Writer, operation: CumulativeSum) -> None:
    """Sums up to each entry."""
    view = writer.view(operation.inputs[0])
    target = writer.new(operation.output)
    axis = operation.dim - 1
    others = [dim for dim in range(len(view.shape)) if dim != axis]
    walk = writer.walk([target.permuted(others), view.permuted(others)], single=True)
    writer.call(CUMULATE, (), walk, view.shape[axis], view.strides[axis], target.strides[axis], view, target)


def gather(writer: Writer, operation: Gather) -> None:
    """Entries of the first operand, chosen by the second."""
    values, indices = (writer.view(name) for name in operation.inputs)
    target = writer.new(operation.output)
    axis = operation.dim - 1
    strides = tuple(0 if dim == axis else stride for dim, stride in enumerate(values.strides))
    walk = writer.walk([target, View(values.buffer, target.shape, strides), indices])
    writer.call(GATHER, (values.ctype,), walk, values.strides[axis], values, indices, target)
