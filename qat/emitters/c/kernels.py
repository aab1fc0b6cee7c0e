"""Functions and types of the C source: one text each, written for every combination of types that a program uses."""

import re
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass

from qat.emitters.c.constants import LINE
from qat.emitters.c.types import CType

#: What is added to the shift of a channel with both roundings of float32, which is -7 or more: others stay below 64.
SHIFT_BASE = 64 + 7
#: Beyond every code: results are limited to it before they are int32.
FARTHEST = 2**20
#: A number of 24 bits that is a code of 8 bits, or of 16, has so many bits behind the point, less two.
PLACES, WIDE_PLACES = 14, 6


@dataclass(frozen=True)
class Kernel:
    """One function of C, or a type.

    name: of the function; the short names of its types stand behind it, add_u8_s8_u8.
    text: C, in which @x is the short name of the type that `types` calls x, @X its name in C, and @_x its `raised`.
    types: letters of the types, in the order in which the name has them.
    needs: kernels that the text uses, each with the letters of this kernel that stand for its own.
    """

    name: str
    text: str
    types: str = ""
    needs: tuple[tuple["Kernel", str], ...] = ()

    def called(self, kinds: Iterable[CType]) -> str:
        """The name of the function for these types."""
        return "_".join([self.name, *(kind.short for kind in kinds)])


class KernelTexts:
    """The kernels that a source needs, each once, behind those that it uses itself."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def need(self, kernel: Kernel, kinds: tuple[CType, ...] = ()) -> str:
        """The name of a kernel for these types, which is now part of the source."""
        called = kernel.called(kinds)
        if called not in self._texts:
            known = dict(zip(kernel.types, kinds, strict=True))
            for other, letters in kernel.needs:
                self.need(other, tuple(known[letter] for letter in letters))

            def written(match: re.Match) -> str:
                mark, letter = match.groups()
                kind = known[letter.lower()]
                return str(kind.raised) if mark else kind.short if letter.islower() else kind.name

            lines = re.sub("@(_?)([a-zA-Z])", written, kernel.text).strip().splitlines()
            self._texts[called] = "\n".join(map(_within_margin, lines))
        return called

    @property
    def texts(self) -> tuple[str, ...]:
        """All of them, in order."""
        return tuple(self._texts.values())


def _within_margin(line: str) -> str:
    """The head of a function whose types are too long for one line is broken; other lines stay."""
    if len(line) <= LINE or not line.startswith("static"):
        return line
    return textwrap.fill(line, LINE, subsequent_indent=" " * 8)


#: Nested loops. RANK and OPERANDS are those of the program; strides are in elements.
WALK = Kernel(
    "walk",
    """
/* Nested loops over elements of several operands, the last the innermost. Strides are in elements of each operand. */
typedef struct {
    int32_t rank;
    int32_t sizes[RANK];
    int32_t strides[OPERANDS][RANK];
} walk_t;

/* Where the loops stand: in each of them, and in each operand. Begins with zeros. */
typedef struct {
    int32_t at[RANK];
    int32_t offset[OPERANDS];
} place_t;

/* The next place of all loops but the innermost; 0 behind the last. */
static int walk_on(const walk_t *walk, place_t *place)
{
    int32_t loop, operand;
    for (loop = walk->rank - 2; loop >= 0; loop--) {
        for (operand = 0; operand < OPERANDS; operand++)
            place->offset[operand] += walk->strides[operand][loop];
        if (++place->at[loop] < walk->sizes[loop])
            return 1;
        place->at[loop] = 0;
        for (operand = 0; operand < OPERANDS; operand++)
            place->offset[operand] -= walk->strides[operand][loop] * walk->sizes[loop];
    }
    return 0;
}
""",
)

MOVE = Kernel(
    "move",
    """
static void move_@x(const @X *restrict from, int32_t count, @X *restrict to)
{
    int32_t i;
    for (i = 0; i < count; i++)
        to[i] = from[i];
}
""",
    "x",
)

CLAMPED = Kernel(
    "clamped",
    """
static inline int32_t clamped(int32_t code, int32_t low, int32_t high)
{
    return code < low ? low : code > high ? high : code;
}
""",
)

RESCALED = Kernel(
    "rescaled",
    """
/* sum * multiplier / 2^shift, rounded to the nearest. The multiplier is chosen for its layer so that every sum that can
   occur gives the code that float32 arithmetic would give. */
static inline int32_t rescaled(int32_t sum, int32_t multiplier, int32_t shift)
{
    return (int32_t)(((int64_t)sum * multiplier + (((int64_t)1 << shift) >> 1)) >> shift);
}
""",
)

BIT_LENGTH = Kernel(
    "bit_length",
    """
/* Binary digits of the magnitude of a number, 0 of 0. */
static int32_t bit_length(int64_t number)
{
    uint64_t rest = number < 0 ? 0 - (uint64_t)number : (uint64_t)number;
    int32_t length = 0, step;
    for (step = 32; step > 0; step >>= 1)
        if (rest >> step) {
            rest >>= step;
            length += step;
        }
    return length + (int32_t)rest;
}
""",
)

FLOAT_ROUNDING = Kernel(
    "float_rounding",
    """
/* value / 2^shift, ties to even. */
static int64_t halved_to_even(int64_t value, int32_t shift)
{
    if (shift <= 0)
        return value;
    if (shift > 62)
        shift = 62;
    return (value + (((int64_t)1 << shift) >> 1) - 1 + ((value >> shift) & 1)) >> shift;
}

/* value with 24 significant bits, ties to even: what storing it in float32 does. */
static int64_t as_float_stores(int64_t value)
{
    const int32_t excess = bit_length(value) - 24;
    return excess > 0 ? halved_to_even(value, excess) * ((int64_t)1 << excess) : value;
}
""",
    needs=((BIT_LENGTH, ""),),
)

ROUNDED_ONCE = Kernel(
    "rounded_once",
    """
/* Whether one rounding of sum * mantissa / 2^shift, now in `steps`, gives what the two of float32 give: storing a
   product in 24 bits moves it by less than 2^-places of a code, so that only beside a tie they can differ. */
static inline int rounded_once(int32_t sum, int32_t mantissa, int32_t shift, int32_t places, int32_t *steps)
{
    if (shift >= 15 && shift <= 40 && sum > -((int32_t)1 << 24) && sum < (int32_t)1 << 24) {
        const int64_t step = (int64_t)1 << shift, movement = step >> places;
        const int64_t raised = (int64_t)sum * mantissa + (step >> 1);
        const int64_t limited = raised >> shift;
        *steps = (int32_t)(limited < -LIMIT ? -LIMIT : limited > LIMIT ? LIMIT : limited);
        return ((raised + movement) & (step - 1)) > 2 * movement;
    }
    return 0;
}
""".replace("LIMIT", str(FARTHEST)),
)

RESCALED_AS_FLOAT = Kernel(
    "rescaled_as_float",
    """
/* The same, or where `shift` is 64 or more round(fl32(fl32(sum) * mantissa / 2^(shift - BASE))), ties to even: what
   float32 computes, for channels whose sums come so near to ties that one rounding cannot decide all of them alike. */
static inline int32_t rescaled_as_float(int32_t sum, int32_t multiplier, int32_t shift)
{
    int32_t steps;
    int64_t product;
    if (shift < 64)
        return rescaled(sum, multiplier, shift);
    if (rounded_once(sum, multiplier, shift - BASE, PLACES, &steps))
        return steps;
    product = as_float_stores(as_float_stores(sum) * multiplier);
    product = shift < BASE ? product * ((int64_t)1 << (BASE - shift)) : halved_to_even(product, shift - BASE);
    return (int32_t)(product < -LIMIT ? -LIMIT : product > LIMIT ? LIMIT : product);
}
""".replace("BASE", str(SHIFT_BASE))
    .replace("LIMIT", str(FARTHEST))
    .replace("PLACES", str(PLACES)),
    needs=((FLOAT_ROUNDING, ""), (ROUNDED_ONCE, ""), (RESCALED, "")),
)
