"""Normalization, with a square root by integers alone."""

from qat.emitters.c.kernels import BIT_LENGTH, WALK, Kernel
from qat.emitters.c.types import S32, S64
from qat.emitters.c.views import View, plain, strides_of
from qat.emitters.c.writer import Writer
from qat.integer.kernels.normalize import ROOT_ESTIMATES, ROOT_STEPS
from qat.integer.operations import Normalize
from qat.integer.operations.normalize import is_narrow

ROOT = Kernel(
    "root",
    """
/* The square root of a number of at most 2^62, within 1, and 1 of 0: Newton steps from an estimate by its digits. */
static int64_t root_of(const int64_t *estimates, int64_t number)
{
    int64_t root;
    int32_t i;
    if (number < 1)
        number = 1;
    root = estimates[(bit_length(number) + 1) >> 1];
    for (i = 0; i < STEPS; i++)
        root = (root + number / root) >> 1;
    return root;
}
""".replace("STEPS", str(ROOT_STEPS)),
    needs=((BIT_LENGTH, ""),),
)

NORMALIZE = Kernel(
    "normalize",
    """
typedef struct {
    const int64_t *estimates;
    int32_t centered;
    int32_t l2;
    int32_t mean;
    int32_t counted;
    int32_t count;
    int32_t root_shift;
    int32_t quotient_shift;
    int64_t epsilon;
    int32_t zero_point;
    int32_t low;
    int32_t high;
} normalize_t;
""",
)

_NORMALIZE = Kernel(
    "normalized",
    """
/* (v * slope - rest + offset) / divisor + base, v being codes less their mean (`mean` where that is not subtracted),
   counted from 0. Operands of both walks are the result, the value, and the constants of each channel. */
static void normalized_@x_@y_@s(const walk_t *outer, const walk_t *inner, const normalize_t *p, const @S *divisors,
        const @S *offsets, const @S *bases, const @X *x, @Y *y)
{
    const int32_t last = inner->rank - 1, count = inner->sizes[last];
    const int32_t y_step = inner->strides[0][last], x_step = inner->strides[1][last];
    const int32_t gain_step = inner->strides[2][last];
    place_t at = {{0}, {0}};
    do {
        place_t place = {{0}, {0}};
        int64_t total = 0, square = 0, rest = 0, mean = p->mean, root, slope;
        int32_t i;
        if (p->centered) {
            do {
                const @X *from = x + at.offset[1] + place.offset[1];
                for (i = 0; i < count; i++)
                    total += (int64_t)from[i * x_step] + p->counted;
            } while (walk_on(inner, &place));
            mean = total / p->count;
            rest = total - mean * p->count;
            place = (place_t){{0}, {0}};
        }
        do {
            const @X *from = x + at.offset[1] + place.offset[1];
            for (i = 0; i < count; i++) {
                const int64_t v = (int64_t)from[i * x_step] + p->counted - mean;
                square += v * v;
            }
        } while (walk_on(inner, &place));
        square = (p->count * square - rest * rest) * ((int64_t)1 << (2 * p->root_shift));
        root = root_of(p->estimates, p->l2 ? (square > p->epsilon ? square : p->epsilon) : square + p->epsilon);
        slope = ((int64_t)p->count << p->quotient_shift) / root;
        rest = rest * ((int64_t)1 << p->quotient_shift) / root;
        place = (place_t){{0}, {0}};
        do {
            const @X *from = x + at.offset[1] + place.offset[1];
            const int32_t channel = at.offset[2] + place.offset[2];
            @Y *to = y + at.offset[0] + place.offset[0];
            for (i = 0; i < count; i++) {
                const int64_t v = (int64_t)from[i * x_step] + p->counted - mean;
                const int32_t gain = channel + i * gain_step;
                const @S normalized = (@S)(v * slope - rest) + offsets[gain];
                const @S steps = normalized / divisors[gain] + bases[gain] + p->zero_point;
                to[i * y_step] = (@Y)(steps < p->low ? p->low : steps > p->high ? p->high : steps);
            }
        } while (walk_on(inner, &place));
    } while (walk_on(outer, &at));
}
""",
    "xys",
    needs=((WALK, ""), (NORMALIZE, ""), (ROOT, "")),
)


def normalize(writer: Writer, operation: Normalize) -> None:
    """`kernels.normalize.normalize`, what is normalized together after another."""
    source, factors = writer.grid(operation.inputs[0]), operation.factors
    view, grid = writer.view(operation.inputs[0]), writer.grid(operation.output)
    target = writer.new(operation.output, view.order)
    sums = S32 if is_narrow(source, grid, operation.row_size(view.shape)) else S64
    gains = tuple(factors.divisors.shape)
    gains = (1,) * (len(view.shape) - len(gains)) + gains
    gain = View(target.buffer, gains, strides_of(gains, plain(len(gains)))).expanded(view.shape)
    inside = [dim - 1 for dim in operation.dims]
    kept = [dim for dim in range(len(view.shape)) if dim not in inside]
    views = target, view, gain
    fields = {
        "estimates": writer.module.constants.array("root_estimates", S64, ROOT_ESTIMATES),
        "centered": int(operation.centered),
        "l2": int(operation.l2),
        "mean": source.zero_point + source.unsigned_offset,
        "counted": source.unsigned_offset,
        "count": factors.count,
        "root_shift": factors.root_shift,
        "quotient_shift": factors.quotient_shift,
        "epsilon": factors.epsilon,
        "zero_point": grid.zero_point,
        "low": operation.clamp_min,
        "high": operation.clamp_max,
    }
    writer.call(
        _NORMALIZE,
        (view.ctype, target.ctype, sums),
        writer.walk([entry.permuted(kept) for entry in views], single=True),
        writer.walk([entry.permuted(inside) for entry in views]),
        writer.record("normalize", "normalize_t", fields),
        writer.array("divisors", sums, factors.divisors),
        writer.array("offsets", sums, factors.offsets),
        writer.array("bases", sums, factors.bases),
        view,
        target,
    )
