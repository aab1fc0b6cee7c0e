"""The last step of everything that adds up: sums to codes, by one multiplication where that is exact."""

from dataclasses import dataclass

from qat.emitters.c.kernels import CLAMPED, RESCALED_AS_FLOAT, SHIFT_BASE, Kernel
from qat.emitters.c.rescaling import Exact, Factors, Rounding, rounded_once, single_rounding
from qat.emitters.c.types import S32, U8
from qat.emitters.c.writer import Writer
from qat.errors import ExportError
from qat.integer.checks import accumulator_reach
from qat.integer.fixed_point import MANTISSA_BITS, NARROW_BITS, requantize, requantize_once
from qat.integer.operations import ComputingOperation
from qat.integer.operations.base import INT32_MAX

#: Shifts of which only the high word of a product matters.
_HIGH_SHIFT = 33

RESCALE_TYPE = Kernel(
    "rescale_type",
    """
/* How sums become codes: one multiplier and one shift for each channel (step 1) or for all (step 0), of sum * factor.
   Strays are sums that the multiplication has wrong: pairs of a sum, and of twice its channel and whether it has the
   code of the sum above it, else below; by their channels. */
typedef struct {
    const int32_t *multipliers;
    const uint8_t *shifts;
    const int32_t *strays;
    int32_t stray_count;
    int32_t step;
    int32_t factor;
    int32_t zero_point;
    int32_t low;
    int32_t high;
} rescale_t;
""",
)

RESCALE_PART = Kernel(
    "rescale_part",
    """
/* The same for the `count` channels from `first` on alone. */
static rescale_t part_of(const rescale_t *rescale, int32_t first, int32_t count)
{
    rescale_t part = *rescale;
    for (; part.stray_count && part.strays[1] < 2 * first; part.stray_count--)
        part.strays += 2;
    while (part.stray_count && part.strays[2 * part.stray_count - 1] >= 2 * (first + count))
        part.stray_count--;
    return part;
}
""",
    needs=((RESCALE_TYPE, ""),),
)

STRAYS = Kernel(
    "move_strays",
    """
/* Strays become the sums beside them. */
static void move_strays(const rescale_t *rescale, int32_t *sums, int32_t first)
{
    int32_t i;
    for (i = 0; i < 2 * rescale->stray_count; i += 2) {
        int32_t *sum = sums + (rescale->strays[i + 1] >> 1) - first;
        if (*sum == rescale->strays[i])
            *sum += rescale->strays[i + 1] & 1 ? 1 : -1;
    }
}
""",
    needs=((RESCALE_TYPE, ""),),
)

RESCALE_SOME = Kernel(
    "rescale_some",
    """
/* Codes of sums: the higher 32 bits of each product, shifted. Two loops, so that no vector has both 64 bits and 8. */
static inline void rescale_some_@y(const rescale_t *rescale, int32_t *restrict sums, int32_t first, int32_t count,
        int32_t step, @Y *restrict y)
{
    const int32_t *restrict multipliers = rescale->multipliers + first * step;
    const uint8_t *restrict shifts = rescale->shifts + first * step;
    const int32_t factor = rescale->factor, zero_point = rescale->zero_point, low = rescale->low, high = rescale->high;
    int32_t i;
    for (i = 0; i < count; i++)
        sums[i] = (int32_t)(((int64_t)(sums[i] * factor) * multipliers[i * step]) >> 32);
    for (i = 0; i < count; i++) {
        const int32_t shift = shifts[i * step];
        y[i] = (@Y)clamped(((sums[i] + (1 << shift >> 1)) >> shift) + zero_point, low, high);
    }
}
""",
    "y",
    needs=((RESCALE_TYPE, ""), (CLAMPED, "")),
)

RESCALE = Kernel(
    "rescale",
    """
/* Codes y of `count` sums, of the channels from `first` on; the sums are lost. In pieces that are whole vectors. */
static void rescale_@y(const rescale_t *rescale, int32_t *restrict sums, int32_t first, int32_t count, @Y *restrict y)
{
    int32_t i = 0;
    move_strays(rescale, sums, first);
    if (!rescale->step) {
        for (; i + 16 <= count; i += 16)
            rescale_some_@y(rescale, sums + i, 0, 16, 0, y + i);
        rescale_some_@y(rescale, sums + i, 0, count - i, 0, y + i);
        return;
    }
    for (; i + 16 <= count; i += 16)
        rescale_some_@y(rescale, sums + i, first + i, 16, 1, y + i);
    for (; i + 8 <= count; i += 8)
        rescale_some_@y(rescale, sums + i, first + i, 8, 1, y + i);
    rescale_some_@y(rescale, sums + i, first + i, count - i, 1, y + i);
}
""",
    "y",
    needs=((STRAYS, ""), (RESCALE_SOME, "y")),
)

RESCALE_AS_FLOAT = Kernel(
    "rescale_as_float",
    """
/* Codes y of `count` sums, of the channels from `first` on. */
static void rescale_as_float_@y(const rescale_t *rescale, const int32_t *restrict sums, int32_t first, int32_t count,
        @Y *restrict y)
{
    const int32_t *multipliers = rescale->multipliers + first * rescale->step;
    const uint8_t *shifts = rescale->shifts + first * rescale->step;
    int32_t i;
    for (i = 0; i < count; i++) {
        const int32_t steps = rescaled_as_float(sums[i], multipliers[i * rescale->step], shifts[i * rescale->step]);
        y[i] = (@Y)clamped(steps + rescale->zero_point, rescale->low, rescale->high);
    }
}
""",
    "y",
    needs=((RESCALE_TYPE, ""), (RESCALED_AS_FLOAT, ""), (CLAMPED, "")),
)


@dataclass(frozen=True)
class Rescaling:
    """How the sums of one operation become codes.

    factors: of every channel. as_float: whether some of them take both roundings of float32, as their shifts then say.
    """

    factors: Factors
    as_float: bool


@dataclass(frozen=True)
class VectorRescaling(Rescaling):
    """`Rescaling` by the kernels `RESCALE`, or where it is `as_float` by `RESCALE_AS_FLOAT`.

    factor: of all sums, which makes every shift more than 32; shifts are what they are beyond. strays: sum, and twice
    the channel plus whether it rises, of each.
    """

    factor: int = 1
    strays: tuple[int, ...] = ()


def rescaling_of(writer: Writer, operation: ComputingOperation, exact: Exact = requantize) -> Rescaling:
    """One rounding for channels of which it gives every code of `exact`, for others both of them."""
    channels = _channels(writer, operation, exact)
    mantissas, exponents = operation.multiplier.mantissa.tolist(), operation.multiplier.exponent.tolist()
    alone = [found if found is not None and not found.strays else None for found in channels]
    factors = [
        (mantissa, SHIFT_BASE - exponent) if found is None else (found.multiplier, found.shift)
        for found, mantissa, exponent in zip(alone, mantissas, exponents, strict=True)
    ]
    return Rescaling(Factors(*map(tuple, zip(*factors, strict=True))), None in alone)


def vector_rescaling_of(writer: Writer, operation: ComputingOperation) -> VectorRescaling:
    """The high word of each product, with strays; where that is not exact, or takes too many, `rescaling_of`."""
    channels = _channels(writer, operation, requantize)
    reach = accumulator_reach(operation, writer.program.named)
    strays = [
        (total, 2 * channel + (move > 0))
        for channel, found in enumerate(channels)
        for total, move in (found.strays if found else ())
    ]
    raised = max(0, max(_HIGH_SHIFT - (found.shift if found else _HIGH_SHIFT) for found in channels))
    if None in channels or len(strays) > len(channels) or (reach + 1) << raised > INT32_MAX:
        plain = rescaling_of(writer, operation)
        return VectorRescaling(plain.factors, True)
    factors = Factors(
        tuple(found.multiplier for found in channels), tuple(found.shift + raised - 32 for found in channels)
    )
    if len(channels) == 1 and strays:  # of every channel that there is
        return VectorRescaling(rescaling_of(writer, operation).factors, True)
    return VectorRescaling(factors, False, 1 << raised, tuple(number for pair in strays for number in pair))


def _channels(writer: Writer, operation: ComputingOperation, exact: Exact) -> list[Rounding | None]:
    """What every channel is rescaled with."""
    grid = writer.grid(operation.output)
    reach = accumulator_reach(operation, writer.program.named)
    if exact is requantize_once or exact is requantize and grid.bits > NARROW_BITS:
        channels = rounded_once(operation.multiplier, reach)
        if channels is None:
            raise ExportError(
                f"{type(operation).__name__} {operation.name!r} has an output of steps 2^{MANTISSA_BITS} times finer "
                "than its sums; its output's range has collapsed."
            )
        return channels
    return single_rounding(operation.multiplier, grid, (operation.clamp_min, operation.clamp_max), reach, exact)


def rescale_fields(writer: Writer, operation: ComputingOperation, rescaling: VectorRescaling) -> dict[str, object]:
    """The fields of a rescale_t."""
    return {
        "multipliers": writer.array("multipliers", S32, rescaling.factors.multipliers),
        "shifts": writer.array("shifts", U8, rescaling.factors.shifts),
        "strays": writer.array("strays", S32, rescaling.strays) if rescaling.strays else None,
        "stray_count": len(rescaling.strays) // 2,
        "step": int(len(rescaling.factors.multipliers) > 1),
        "factor": rescaling.factor,
        "zero_point": writer.grid(operation.output).zero_point,
        "low": operation.clamp_min,
        "high": operation.clamp_max,
    }
