"""Division of one value by another."""

from qat.emitters.c.forms.elementwise import operands_of
from qat.emitters.c.kernels import WALK, Kernel
from qat.emitters.c.types import S32, S64
from qat.emitters.c.writer import Writer
from qat.integer.operations import Divide

DIVIDE = Kernel(
    "divide",
    """
/* (a - first) * numerator / ((b - second) << shift), ties away from zero; a divisor of 0 counts as 1. */
static void divide_@a_@b_@y_@s(const walk_t *walk, int32_t first, int32_t second, @S numerator, int32_t shift,
        int32_t zero_point, int32_t low, int32_t high, const @A *restrict a, const @B *restrict b, @Y *restrict y)
{
    const int32_t last = walk->rank - 1, count = walk->sizes[last];
    const int32_t y_step = walk->strides[0][last], a_step = walk->strides[1][last], b_step = walk->strides[2][last];
    place_t place = {{0}, {0}};
    int32_t i;
    do {
        for (i = 0; i < count; i++) {
            const int32_t over = (int32_t)a[place.offset[1] + i * a_step] - first;
            const int32_t under = (int32_t)b[place.offset[2] + i * b_step] - second;
            const @S divisor = (@S)(under < 0 ? -under : under > 0 ? under : 1) * ((@S)1 << shift);
            const @S size = ((@S)(over < 0 ? -over : over) * numerator + (divisor >> 1)) / divisor;
            const @S steps = ((over < 0) != (under < 0) ? -size : size) + zero_point;
            y[place.offset[0] + i * y_step] = (@Y)(steps < low ? low : steps > high ? high : steps);
        }
    } while (walk_on(walk, &place));
}
""",
    "abys",
    needs=((WALK, ""),),
)


def divide(writer: Writer, operation: Divide) -> None:
    """One integer division an element."""
    target, operands = operands_of(writer, operation)
    grids = [writer.grid(name) for name in (*operation.inputs, operation.output)]
    sums = S32 if max(grid.bits for grid in grids) <= 8 else S64
    writer.call(
        DIVIDE,
        (*(operand.ctype for operand in operands), target.ctype, sums),
        writer.walk([target, *operands]),
        grids[0].zero_point,
        grids[1].zero_point,
        operation.ratio.numerator,
        operation.ratio.shift,
        grids[2].zero_point,
        operation.clamp_min,
        operation.clamp_max,
        *operands,
        target,
    )
