"""Softmax and its logarithm: a table of exponentials, and one division a code."""

from qat.emitters.c.kernels import BIT_LENGTH, CLAMPED, WALK, Kernel
from qat.emitters.c.types import S32, S64
from qat.emitters.c.views import View
from qat.emitters.c.writer import Writer
from qat.integer.kernels.softmax import LOG_OF_TWO, log_table
from qat.integer.operations import LogSoftmax, Softmax
from qat.integer.operations.softmax import LOG_BITS, LOG_TABLE_BITS

#: Operands of the walk over rows: result, scores, mask.
SOFTMAX = Kernel(
    "softmax",
    """
typedef struct {
    const int32_t *exponentials;
    int32_t size;
    int32_t y_step;
    int32_t x_step;
    int32_t mask_step;
    int32_t lowest;
    int32_t numerator_shift;
    int32_t sum_shift;
    int32_t divisor_factor;
    int32_t divisor_shift;
    int64_t divisor_limit;
    int32_t zero_point;
    int32_t low;
    int32_t high;
} softmax_t;
""",
)

_SOFTMAX = """
/* exp(x) / sum of exp(x) of each row@OF, by distances to the largest code. */
static void @NAME_@x_@y_@s(const walk_t *walk, const softmax_t *p, const @X *x, @PARAMETER@Y *y)
{
    place_t at = {{0}, {0}};
    do {
        const @X *row = x + at.offset[1];
@ROW        int32_t largest = 0, i;
        int64_t sum = 0, divisor;
        for (i = 0; i < p->size; i++) {
            const int32_t code = (int32_t)row[i * p->x_step] - p->lowest;
            largest = @AND code > largest ? code : largest;
        }
        for (i = 0; i < p->size; i++) {
            const int32_t distance = largest - ((int32_t)row[i * p->x_step] - p->lowest);
            sum += @EXPONENTIAL;
        }
        divisor = ((sum >> p->sum_shift) * p->divisor_factor + (((int64_t)1 << p->divisor_shift) >> 1))
            >> p->divisor_shift;
        divisor = divisor < 1 ? 1 : divisor > p->divisor_limit ? p->divisor_limit : divisor;
        for (i = 0; i < p->size; i++) {
            const int32_t distance = largest - ((int32_t)row[i * p->x_step] - p->lowest);
            const @S e = @EXPONENTIAL;
            const @S numerator = e * ((@S)1 << p->numerator_shift) + ((@S)divisor >> 1);
            const int32_t steps = (int32_t)(numerator / (@S)divisor);
            y[at.offset[0] + i * p->y_step] = (@Y)clamped(steps + p->zero_point, p->low, p->high);
        }
    } while (walk_on(walk, &at));
}
"""


def _softmax(masked: bool) -> Kernel:
    """Of all elements of a row, or of those whose mask is 1."""
    part = "part[i * p->mask_step]"
    words = {
        "@NAME": "masked_softmax" if masked else "softmax",
        "@OF": ", of the elements that take part" if masked else "",
        "@PARAMETER": "const uint8_t *mask, " if masked else "",
        "@ROW": "        const uint8_t *part = mask + at.offset[2];\n" if masked else "",
        "@AND ": f"{part} && " if masked else "",
        "@EXPONENTIAL": f"{part} ? p->exponentials[distance] : 0" if masked else "p->exponentials[distance]",
    }
    text = _SOFTMAX
    for word, written in words.items():
        text = text.replace(word, written)
    return Kernel(words["@NAME"], text, "xys", ((WALK, ""), (SOFTMAX, ""), (CLAMPED, "")))


KERNELS = {masked: _softmax(masked) for masked in (False, True)}

LOGARITHM = Kernel(
    "log_of",
    """
typedef struct {
    const int32_t *exponentials;
    const int32_t *logs;
    int32_t size;
    int32_t y_step;
    int32_t x_step;
    int32_t lowest;
    int32_t bits;
    int32_t digits;
    int64_t distance_factor;
    int64_t log_factor;
    int32_t log_shift;
    int32_t shift;
    int32_t zero_point;
    int32_t low;
    int32_t high;
} log_softmax_t;

/* The natural logarithm of sum / 2^bits with LOG_BITS fractional bits: binary digits, a table of LOG_TABLE_BITS more,
   and two terms of the series for the rest. */
static int64_t log_of(const log_softmax_t *p, int64_t sum)
{
    const int32_t exponent = bit_length(sum) - 1 - p->bits;
    const int64_t raised = sum * ((int64_t)1 << (p->digits - exponent));
    const int64_t step = (int64_t)1 << (p->bits + p->digits - LOG_TABLE_BITS);
    const int64_t place = raised / step, rest = (raised - place * step) * ((int64_t)1 << LOG_BITS) / (place * step);
    const int64_t entry = p->logs[place - ((int64_t)1 << LOG_TABLE_BITS)];
    return entry + (int64_t)exponent * LOG_OF_TWO + rest - ((rest * rest) >> (LOG_BITS + 1));
}
""".replace("LOG_TABLE_BITS)", f"{LOG_TABLE_BITS})")
    .replace("LOG_TABLE_BITS more", f"{LOG_TABLE_BITS} more")
    .replace("<< LOG_BITS", f"<< {LOG_BITS}")
    .replace("(LOG_BITS + 1)", f"{LOG_BITS + 1}")
    .replace("with LOG_BITS", f"with {LOG_BITS}")
    .replace("LOG_OF_TWO", str(LOG_OF_TWO)),
    needs=((BIT_LENGTH, ""),),
)

LOG_SOFTMAX = Kernel(
    "log_softmax",
    """
static void log_softmax_@x_@y(const walk_t *walk, const log_softmax_t *p, const @X *x, @Y *y)
{
    place_t at = {{0}, {0}};
    do {
        const @X *row = x + at.offset[1];
        int32_t largest = row[0], i;
        int64_t sum = 0, added;
        for (i = 1; i < p->size; i++)
            largest = row[i * p->x_step] > largest ? row[i * p->x_step] : largest;
        for (i = 0; i < p->size; i++)
            sum += p->exponentials[largest - row[i * p->x_step]];
        added = (log_of(p, sum) * p->log_factor + (((int64_t)1 << p->log_shift) >> 1)) >> p->log_shift;
        added += ((int64_t)1 << p->shift) >> 1;
        for (i = 0; i < p->size; i++) {
            const int64_t distance = largest - row[i * p->x_step];
            const int32_t steps = (int32_t)((distance * p->distance_factor + added) >> p->shift);
            y[at.offset[0] + i * p->y_step] = (@Y)clamped(p->zero_point - steps, p->low, p->high);
        }
    } while (walk_on(walk, &at));
}
""",
    "xy",
    ((WALK, ""), (CLAMPED, ""), (LOGARITHM, "")),
)


def softmax(writer: Writer, operation: Softmax) -> None:
    """`kernels.softmax.softmax`, a row after another."""
    factors, axis = operation.factors, operation.dim - 1
    view = writer.view(operation.inputs[0])
    target = writer.new(operation.output, view.order)
    masks = [writer.view(name).expanded(view.shape) for name in operation.inputs[1:]]
    sums = S32 if factors.divisor_limit < 2**31 else S64
    fields = {
        "exponentials": writer.array("exponentials", S32, factors.exponentials),
        "size": view.shape[axis],
        "y_step": target.strides[axis],
        "x_step": view.strides[axis],
        "mask_step": masks[0].strides[axis] if masks else 0,
        "lowest": writer.grid(operation.inputs[0]).quant_min,
        "numerator_shift": factors.numerator_shift,
        "sum_shift": factors.sum_shift,
        "divisor_factor": factors.divisor_factor,
        "divisor_shift": factors.divisor_shift,
        "divisor_limit": factors.divisor_limit,
        "zero_point": writer.grid(operation.output).zero_point,
        "low": operation.clamp_min,
        "high": operation.clamp_max,
    }
    rows = _rows([target, view, *masks], axis)
    kernel = KERNELS[bool(masks)]
    record = writer.record("softmax", "softmax_t", fields)
    walk = writer.walk(rows, single=True)
    writer.call(kernel, (view.ctype, target.ctype, sums), walk, record, view, *masks, target)


def log_softmax(writer: Writer, operation: LogSoftmax) -> None:
    """`kernels.softmax.log_softmax`, a row after another."""
    factors, axis = operation.factors, operation.dim - 1
    view = writer.view(operation.inputs[0])
    target = writer.new(operation.output, view.order)
    fields = {
        "exponentials": writer.array("exponentials", S32, factors.exponentials),
        "logs": writer.module.constants.array("logarithms", S32, log_table()),
        "size": view.shape[axis],
        "y_step": target.strides[axis],
        "x_step": view.strides[axis],
        "bits": int(factors.exponentials[0]).bit_length() - 1,
        "digits": view.shape[axis].bit_length(),
        "distance_factor": factors.distance_factor,
        "log_factor": factors.log_factor,
        "log_shift": factors.log_shift,
        "shift": factors.shift,
        "zero_point": writer.grid(operation.output).zero_point,
        "low": operation.clamp_min,
        "high": operation.clamp_max,
    }
    record = writer.record("softmax", "log_softmax_t", fields)
    walk = writer.walk(_rows([target, view], axis), single=True)
    writer.call(LOG_SOFTMAX, (view.ctype, target.ctype), walk, record, view, target)


def _rows(views: list[View], axis: int) -> list[View]:
    """The first element of every row."""
    return [view.permuted([dim for dim in range(len(view.shape)) if dim != axis]) for view in views]
