"""Matrix products of two values."""

from qat.emitters.c.forms.rescale import RESCALE, RESCALE_AS_FLOAT, RESCALE_TYPE, rescale_fields, rescaling_of
from qat.emitters.c.kernels import WALK, Kernel
from qat.emitters.c.types import S32
from qat.emitters.c.views import View
from qat.emitters.c.writer import Writer
from qat.integer.operations import MatMul

MATRICES = Kernel(
    "matrices_type",
    """
/* A product of `rows` x `inner` and `inner` x `columns`, with the strides of both operands. */
typedef struct {
    int32_t rows;
    int32_t inner;
    int32_t columns;
    int32_t a_row;
    int32_t a_inner;
    int32_t b_inner;
    int32_t b_column;
    int32_t a_zero;
    int32_t b_zero;
    rescale_t rescale;
} matrices_t;
""",
    needs=((RESCALE_TYPE, ""),),
)

ADD_ROW = Kernel(
    "add_row",
    """
/* sums += factor * (b - zero) */
static void add_row_@b(int32_t factor, const @B *restrict b, int32_t step, int32_t zero, int32_t count,
        int32_t *restrict sums)
{
    int32_t i;
    if (step == 1)
        for (i = 0; i < count; i++)
            sums[i] += factor * ((int32_t)b[i] - zero);
    else
        for (i = 0; i < count; i++)
            sums[i] += factor * ((int32_t)b[i * step] - zero);
}
""",
    "b",
)

DOT = Kernel(
    "dot",
    """
/* sum of (a - a_zero) * (b - b_zero) */
static int32_t dot_@a_@b(const @A *restrict a, const @B *restrict b, int32_t a_zero, int32_t b_zero, int32_t count)
{
    int32_t sum = 0, i;
    for (i = 0; i < count; i++)
        sum += ((int32_t)a[i] - a_zero) * ((int32_t)b[i] - b_zero);
    return sum;
}
""",
    "ab",
)

_MULTIPLY = """
/* Products of pairs of matrices; the walk is over the pairs. */
static void matmul_@a_@b_@y(const walk_t *walk, const matrices_t *m, const @A *a, const @B *b, @Y *y, int32_t *sums)
{
    place_t place = {{0}, {0}};
    int32_t row, column, i;
    do {
        const @A *one = a + place.offset[1];
        const @B *other = b + place.offset[2];
        @Y *to = y + place.offset[0];
        for (row = 0; row < m->rows; row++, one += m->a_row, to += m->columns) {
            if (m->a_inner == 1 && m->b_inner == 1)
                for (column = 0; column < m->columns; column++)
                    sums[column] = dot_@a_@b(one, other + column * m->b_column, m->a_zero, m->b_zero, m->inner);
            else {
                for (column = 0; column < m->columns; column++)
                    sums[column] = 0;
                for (i = 0; i < m->inner; i++)
                    add_row_@b((int32_t)one[i * m->a_inner] - m->a_zero, other + i * m->b_inner, m->b_column, m->b_zero,
                        m->columns, sums);
            }
            rescale_@y(&m->rescale, sums, 0, m->columns, to);
        }
    } while (walk_on(walk, &place));
}
"""

_NEEDS = ((WALK, ""), (MATRICES, ""), (ADD_ROW, "b"), (DOT, "ab"))

MULTIPLY = {
    False: Kernel("matmul", _MULTIPLY, "aby", (*_NEEDS, (RESCALE, "y"))),
    True: Kernel(
        "matmul_as_float",
        _MULTIPLY.replace("matmul_@a", "matmul_as_float_@a").replace("rescale_@y", "rescale_as_float_@y"),
        "aby",
        (*_NEEDS, (RESCALE_AS_FLOAT, "y")),
    ),
}


def matmul(writer: Writer, operation: MatMul) -> None:
    """Rows of sums, rescaled."""
    first, second = (writer.view(name) for name in operation.inputs)
    target = writer.new(operation.output)
    leading = target.shape[:-2]
    spread = [operand.expanded((*leading, *operand.shape[-2:])) if leading else operand for operand in (first, second)]
    rescaling = rescaling_of(writer, operation)
    zeros = [writer.grid(name).zero_point for name in operation.inputs]
    fields = {
        "rows": first.shape[-2],
        "inner": first.shape[-1],
        "columns": second.shape[-1],
        "a_row": first.strides[-2],
        "a_inner": first.strides[-1],
        "b_inner": second.strides[-2],
        "b_column": second.strides[-1],
        "a_zero": zeros[0],
        "b_zero": zeros[1],
        "rescale": rescale_fields(writer, operation, rescaling),
    }
    pairs = [View(view.buffer, leading, view.strides[: len(leading)]) for view in (target, *spread)]
    writer.call(
        MULTIPLY[rescaling.as_float],
        (first.ctype, second.ctype, target.ctype),
        writer.walk(pairs, single=True),
        writer.record("matrices", "matrices_t", fields),
        *spread,
        target,
        writer.scratch(S32, second.shape[-1]),
    )
