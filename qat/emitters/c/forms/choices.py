"""Codes that are chosen or mirrored, and where the largest lie."""

from qat.emitters.c.forms.elementwise import operands_of
from qat.emitters.c.kernels import WALK, Kernel
from qat.emitters.c.writer import Writer
from qat.integer.operations import ArgMax, Negate, Select, TopKIndices, TopKValues

MIRROR = Kernel(
    "mirror",
    """
static void mirror_@x(const walk_t *walk, int32_t total, const @X *restrict x, @X *restrict y)
{
    const int32_t last = walk->rank - 1, count = walk->sizes[last];
    const int32_t y_step = walk->strides[0][last], x_step = walk->strides[1][last];
    place_t place = {{0}, {0}};
    int32_t i;
    do {
        for (i = 0; i < count; i++)
            y[place.offset[0] + i * y_step] = (@X)(total - x[place.offset[1] + i * x_step]);
    } while (walk_on(walk, &place));
}
""",
    "x",
    needs=((WALK, ""),),
)

SELECT = Kernel(
    "select",
    """
/* first where the mask is 1, else second. */
static void select_@x(const walk_t *walk, const uint8_t *restrict mask, const @X *restrict first,
        const @X *restrict second, @X *restrict y)
{
    const int32_t last = walk->rank - 1, count = walk->sizes[last];
    const int32_t y_step = walk->strides[0][last], mask_step = walk->strides[1][last];
    const int32_t first_step = walk->strides[2][last], second_step = walk->strides[3][last];
    place_t place = {{0}, {0}};
    int32_t i;
    do {
        for (i = 0; i < count; i++)
            y[place.offset[0] + i * y_step] = mask[place.offset[1] + i * mask_step]
                ? first[place.offset[2] + i * first_step]
                : second[place.offset[3] + i * second_step];
    } while (walk_on(walk, &place));
}
""",
    "x",
    needs=((WALK, ""),),
)

_TOP = """
/* The `taken` most extreme codes of each row (sign 1: largest, -1: smallest), the first of equals first. */
static void @NAME_@x(const walk_t *walk, int32_t size, int32_t x_step, int32_t taken, int32_t y_step, int32_t sign,
        const @X *x, @Y *y)
{
    place_t at = {{0}, {0}};
    do {
        const @X *row = x + at.offset[1];
        int32_t rank, i, before = -1;
        for (rank = 0; rank < taken; rank++) {
            int32_t best = -1;
            for (i = 0; i < size; i++) {
                const int32_t code = sign * (int32_t)row[i * x_step];
                const int32_t limit = before < 0 ? 0 : sign * (int32_t)row[before * x_step];
                if (before >= 0 && (code > limit || (code == limit && i <= before)))
                    continue;
                if (best < 0 || code > sign * (int32_t)row[best * x_step])
                    best = i;
            }
            y[at.offset[0] + rank * y_step] = @RESULT;
            before = best;
        }
    } while (walk_on(walk, &at));
}
"""

TOP_VALUES = Kernel(
    "top_values",
    _TOP.replace("@NAME", "top_values").replace("@Y", "@X").replace("@RESULT", "row[best * x_step]"),
    "x",
    needs=((WALK, ""),),
)

TOP_INDICES = Kernel(
    "top_indices",
    _TOP.replace("@NAME", "top_indices").replace("@Y", "int32_t").replace("@RESULT", "best"),
    "x",
    needs=((WALK, ""),),
)


def negate(writer: Writer, operation: Negate) -> None:
    """quant_min + quant_max - code."""
    target, operands = operands_of(writer, operation)
    grid = writer.grid(operation.output)
    total = grid.quant_min + grid.quant_max
    writer.call(MIRROR, (target.ctype,), writer.walk([target, *operands]), total, *operands, target)


def select(writer: Writer, operation: Select) -> None:
    """The second operand where the first is 1, else the third."""
    target, operands = operands_of(writer, operation)
    writer.call(SELECT, (target.ctype,), writer.walk([target, *operands]), *operands, target)


def arg_max(writer: Writer, operation: ArgMax) -> None:
    """Where the first of the largest codes lies."""
    _top(writer, operation, TOP_INDICES, 1, 1)


def top_values(writer: Writer, operation: TopKValues) -> None:
    """The most extreme codes."""
    _top(writer, operation, TOP_VALUES, operation.k, 1 if operation.largest else -1)


def top_indices(writer: Writer, operation: TopKIndices) -> None:
    """Where the most extreme codes lie."""
    _top(writer, operation, TOP_INDICES, operation.k, 1 if operation.largest else -1)


def _top(writer: Writer, operation: ArgMax | TopKValues, kernel: Kernel, taken: int, sign: int) -> None:
    view = writer.view(operation.inputs[0])
    target = writer.new(operation.output)
    axis = operation.dim - 1
    others = [dim for dim in range(len(view.shape)) if dim != axis]
    kept = target.permuted(others) if len(target.shape) == len(view.shape) else target
    writer.call(
        kernel,
        (view.ctype,),
        writer.walk([kept, view.permuted(others)], single=True),
        view.shape[axis],
        view.strides[axis],
        taken,
        target.strides[axis] if len(target.shape) == len(view.shape) else 0,
        sign,
        view,
        target,
    )
