"""The last step of everything that adds up: sums to codes, by one multiplication where that is exact."""

from dataclasses import dataclass

from qat.emitters.c.kernels import CLAMPED, RESCALED, RESCALED_AS_FLOAT, SHIFT_BASE, Kernel
from qat.emitters.c.rescaling import Exact, Factors, rounded_once, single_rounding
from qat.emitters.c.types import S32, U8
from qat.emitters.c.writer import Writer
from qat.errors import ExportError
from qat.integer.checks import accumulator_reach
from qat.integer.fixed_point import MANTISSA_BITS, NARROW_BITS, requantize, requantize_once
from qat.integer.operations import ComputingOperation

RESCALE_TYPE = Kernel(
    "rescale_type",
    """
/* How sums become codes: one multiplier and one shift for each channel (step 1) or for all (step 0). */
typedef struct {
    const int32_t *multipliers;
    const uint8_t *shifts;
    int32_t step;
    int32_t zero_point;
    int32_t low;
    int32_t high;
} rescale_t;
""",
)

RESCALE = Kernel(
    "rescale",
    """
/* Codes y of `count` sums, of the channels from `first` on. */
static void rescale_@y(const rescale_t *rescale, const int32_t *restrict sums, int32_t first, int32_t count,
        @Y *restrict y)
{
    const int32_t *multipliers = rescale->multipliers + first * rescale->step;
    const uint8_t *shifts = rescale->shifts + first * rescale->step;
    int32_t i;
    for (i = 0; i < count; i++) {
        const int32_t steps = rescaled(sums[i], multipliers[i * rescale->step], shifts[i * rescale->step]);
        y[i] = (@Y)clamped(steps + rescale->zero_point, rescale->low, rescale->high);
    }
}
""",
    "y",
    needs=((RESCALE_TYPE, ""), (RESCALED, ""), (CLAMPED, "")),
)

RESCALE_AS_FLOAT = Kernel(
    "rescale_as_float",
    RESCALE.text.replace("rescale_@y", "rescale_as_float_@y").replace("rescaled(", "rescaled_as_float("),
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

    @property
    def kernel(self) -> Kernel:
        """What computes it."""
        return RESCALE_AS_FLOAT if self.as_float else RESCALE


def rescaling_of(writer: Writer, operation: ComputingOperation, exact: Exact = requantize) -> Rescaling:
    """One rounding for channels of which it gives every code of `exact`, for others both of them."""
    grid = writer.grid(operation.output)
    reach = accumulator_reach(operation, writer.program.named)
    if exact is requantize_once or exact is requantize and grid.bits > NARROW_BITS:
        factors = rounded_once(operation.multiplier, reach)
        if factors is None:
            raise ExportError(
                f"{type(operation).__name__} {operation.name!r} has an output of steps 2^{MANTISSA_BITS} times finer "
                "than its sums; its output's range has collapsed."
            )
        return Rescaling(factors, False)
    channels = single_rounding(operation.multiplier, grid, (operation.clamp_min, operation.clamp_max), reach, exact)
    mantissas, exponents = operation.multiplier.mantissa.tolist(), operation.multiplier.exponent.tolist()
    factors = [
        (mantissa, SHIFT_BASE - exponent) if factor is None else factor
        for factor, mantissa, exponent in zip(channels, mantissas, exponents, strict=True)
    ]
    return Rescaling(Factors(*map(tuple, zip(*factors, strict=True))), None in channels)


def rescale_fields(writer: Writer, operation: ComputingOperation, rescaling: Rescaling) -> dict[str, object]:
    """The fields of a rescale_t."""
    return {
        "multipliers": writer.array("multipliers", S32, rescaling.factors.multipliers),
        "shifts": writer.array("shifts", U8, rescaling.factors.shifts),
        "step": int(len(rescaling.factors.multipliers) > 1),
        "zero_point": writer.grid(operation.output).zero_point,
        "low": operation.clamp_min,
        "high": operation.clamp_max,
    }
