"""What LiteRT divides in a normalization, and whether its int64 numbers hold that."""

import math
from dataclasses import dataclass

from qat.emitters.litert.long_division import Digits, RootSteps, digits_of, root_steps
from qat.integer.operations import Normalize
from qat.integer.operations.normalize import is_narrow, largest_normalized, normalized_bits
from qat.integer.values import Grid

#: Sums of a row's codes and of their squares lie below.
_END = 2**31


@dataclass(frozen=True)
class NormDivisions:
    """narrow: whether values are normalized in int32. root: steps of the root. slopes: digits of what is divided by
    it. codes: digits of the last division where it is one of int64 numbers."""

    narrow: bool
    root: RootSteps
    slopes: Digits
    codes: Digits | None


def norm_divisions(operation: Normalize, shape: tuple[int, ...], source: Grid, target: Grid) -> NormDivisions | str:
    """How the divisions of a normalization are written, or why they cannot be. shape: of the value."""
    factors, count, spread = operation.factors, operation.row_size(shape), source.quant_max - source.quant_min
    narrow, highest = is_narrow(source, target, count), normalized_bits(source, target, count)
    if count * 2**source.bits >= _END:
        return f"it adds the codes of a row in 32 bits, and a row has {count} of {source.bits} bits"
    largest = (factors.count * count * spread**2 << 2 * factors.root_shift) + factors.epsilon
    root = root_steps(max(largest, 1))
    if root is None:
        return f"it takes roots of numbers below 2^62, and these reach 2^{math.log2(largest):.2f}"
    # the least square of a row whose values are not all 0; of others the slope is multiplied with 0
    if operation.centered:
        least = max(count - 1, 1)
    else:
        least = factors.count
    least <<= 2 * factors.root_shift
    least = max(least, factors.epsilon) if operation.l2 else least + factors.epsilon
    numerator = factors.count << factors.quotient_shift
    slopes = digits_of(numerator // math.isqrt(least), root.highest, numerator, factors.quotient_shift)
    if slopes is None:
        return f"it divides by a root of up to {root.highest}, and 2^{factors.quotient_shift} is too large for it"
    codes = None
    if not narrow:
        sizes = factors.divisors.abs()
        largest = 2 ** (factors.quotient_shift - factors.root_shift) * largest_normalized(count, operation.l2)
        offsets = factors.offsets * factors.divisors.sign()
        most = int(offsets.max()) + math.ceil(largest) + spread + 2
        quotient = int(((offsets + (math.ceil(largest) + spread + 2)) // sizes).max())
        codes = digits_of(quotient, int(sizes.max()), most)
        if codes is None:
            return (
                f"it divides numbers of {highest} bits for codes of {target.bits}, and a row of {count} elements spans "
                f"{quotient} steps of them"
            )
    return NormDivisions(narrow, root, slopes, codes)
