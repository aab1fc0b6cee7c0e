"""Matrix products of two values."""

from qat.emitters.c.forms.rescale import RESCALE, RESCALE_AS_FLOAT, RESCALE_TYPE, rescale_fields, vector_rescaling_of
from qat.emitters.c.kernels import WALK, Kernel
from qat.emitters.c.types import S16, S32
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

ADD_ROWS = Kernel(
    "add_rows",
    """
/* The same of four rows, which lie `apart`, each with its factor. */
static void add_rows_@b(const int32_t *factors, const @B *restrict b, int32_t apart, int32_t zero, int32_t count,
        int32_t *restrict sums)
{
    const int32_t f0 = factors[0], f1 = factors[1], f2 = factors[2], f3 = factors[3];
    const @B *restrict b1 = b + apart, *restrict b2 = b1 + apart, *restrict b3 = b2 + apart;
    int32_t i;
    for (i = 0; i < count; i++)
        sums[i] += f0 * ((int32_t)b[i] - zero) + f1 * ((int32_t)b1[i] - zero) + f2 * ((int32_t)b2[i] - zero)
            + f3 * ((int32_t)b3[i] - zero);
}
""",
    "b",
)

DOT = Kernel(
    "dot",
    """
/* sum of (a - a_zero) * (b - b_zero) */
static int32_t dot_@a_@b_@d(const @A *restrict a, const @B *restrict b, @D a_zero, @D b_zero, int32_t count)
{
    int32_t sum = 0, i;
    for (i = 0; i < count; i++)
        sum += (int32_t)(@D)(a[i] - a_zero) * (@D)(b[i] - b_zero);
    return sum;
}
""",
    "abd",
)

_MULTIPLY = """
/* Products of pairs of matrices; the walk is over the pairs. */
static void matmul_@a_@b_@d_@y(const walk_t *walk, const matrices_t *m, const @A *a, const @B *b, @Y *y, int32_t *sums)
{
    const int32_t fours = m->b_column == 1 ? m->inner / 4 * 4 : 0;
    place_t place = {{0}, {0}};
    int32_t row, column, i;
    do {
        const @A *one = a + place.offset[1];
        const @B *other = b + place.offset[2];
        @Y *to = y + place.offset[0];
        for (row = 0; row < m->rows; row++, one += m->a_row, to += m->columns) {
            if (m->a_inner == 1 && m->b_inner == 1)
                for (column = 0; column < m->columns; column++)
                    sums[column] = dot_@a_@b_@d(one, other + column * m->b_column, (@D)m->a_zero, (@D)m->b_zero,
                        m->inner);
            else {
                for (column = 0; column < m->columns; column++)
                    sums[column] = 0;
                for (i = 0; i < fours; i += 4) {
                    int32_t factors[4], k;
                    for (k = 0; k < 4; k++)
                        factors[k] = (int32_t)one[(i + k) * m->a_inner] - m->a_zero;
                    add_rows_@b(factors, other + i * m->b_inner, m->b_inner, m->b_zero, m->columns, sums);
                }
                for (; i < m->inner; i++)
                    add_row_@b((int32_t)one[i * m->a_inner] - m->a_zero, other + i * m->b_inner, m->b_column, m->b_zero,
                        m->columns, sums);
            }
            rescale_@y(&m->rescale, sums, 0, m->columns, to);
        }
    } while (walk_on(walk, &place));
}
"""

_NEEDS = ((WALK, ""), (MATRICES, ""), (ADD_ROW, "b"), (ADD_ROWS, "b"), (DOT, "abd"))

MULTIPLY = {
    False: Kernel("matmul", _MULTIPLY, "abdy", (*_NEEDS, (RESCALE, "y"))),
    True: Kernel(
        "matmul_as_float",
        _MULTIPLY.replace("matmul_@a", "matmul_as_float_@a").replace("rescale_@y", "rescale_as_float_@y"),
        "abdy",
        (*_NEEDS, (RESCALE_AS_FLOAT, "y")),
    ),
}


def matmul(writer: Writer, operation: MatMul) -> None:
    """Rows of sums, rescaled."""
    first, second = (writer.view(name) for name in operation.inputs)
    target = writer.new(operation.output)
    leading = target.shape[:-2]
    spread = [operand.expanded((*leading, *operand.shape[-2:])) if leading else operand for operand in (first, second)]
    rescaling = vector_rescaling_of(writer, operation)
    # of bytes the differences are products of 16 bits, which vectors add up in pairs
    differences = S16 if first.ctype.bytes == second.ctype.bytes == 1 else S32
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
        (first.ctype, second.ctype, differences, target.ctype),
        writer.walk(pairs, single=True),
        writer.record("matrices", "matrices_t", fields),
        *spread,
        target,
        writer.scratch(S32, second.shape[-1]),
    )
