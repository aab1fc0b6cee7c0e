"""float32 arithmetic with integers alone: every rescaling of a program, to the bit that a float32 kernel computes.

A float32 number is `mantissa * 2**exponent` with a 24-bit mantissa. Multiplying two of them and rounding the product
back to 24 significant bits, ties to even, is what the hardware does; here it is done on int64 tensors.

Three rescalings occur:
- `requantize`: clamp(round(fl32(fl32(acc) * M)) + zero_point), after convolutions, matrix products and means; to codes
  of more than 8 bits, for which no runtime has a float32 kernel, clamp(floor(acc * M + 1/2) + zero_point);
- `requantize_product`: clamp(round(fl32(fl32(acc * M) + zero_point))), after elementwise products: their float32
  kernels add the zero point before they round, which is one rounding more;
- `requantize_sum`: clamp(round((a * Ma + b * Mb) / 2**shift) + zero_point) with short multipliers
  (see `SumMultipliers`), after additions.
"""

from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from qat.errors import ProgramError
from qat.integer.values import Grid, check_dtype
from qat.tracing import is_traced

#: Significant bits of a float32.
MANTISSA_BITS = 24
#: Exponents of multipliers, of `mantissa * 2**exponent`: 2^-126 (the smallest normal float32) to below 2^31.
MIN_EXPONENT, MAX_EXPONENT = -126 - (MANTISSA_BITS - 1), 31 - MANTISSA_BITS
#: Shifts up to which products of any grid, raised by half a step, stay inside int64: 40 + 16 bits + 2.
_FAST_SHIFT = 40
#: Widest codes that runtimes have kernels for, which round in float32.
NARROW_BITS = 8
#: From these shifts on every product of a mantissa and a sum of 31 bits, or of 37, is rounded to 0.
LONGEST_SHIFT, LONGEST_WIDE_SHIFT = 31 + MANTISSA_BITS + 1, 37 + MANTISSA_BITS + 1


def check_factor_parts(mantissa: Tensor, exponent: Tensor) -> None:
    """Raise `ProgramError` for mantissas and exponents that are not one of each per channel, int32."""
    check_dtype(mantissa, torch.int32, "multiplier mantissas")
    check_dtype(exponent, torch.int32, "multiplier exponents")
    if mantissa.dim() != 1 or mantissa.shape != exponent.shape or not mantissa.numel():
        raise ProgramError(
            f"multiplier mantissas of shape {tuple(mantissa.shape)} and exponents of shape {tuple(exponent.shape)}; "
            "both are (channels,), or (1,)."
        )


@dataclass(frozen=True, eq=False)
class Multiplier:
    """float32 factors as integers, one per output channel or a single one: `mantissa * 2**exponent`.

    mantissa: int32 (O,), in 2^23..2^24-1. exponent: int32 (O,).
    """

    mantissa: Tensor
    exponent: Tensor

    def __post_init__(self):
        check_factor_parts(self.mantissa, self.exponent)
        low, high = 2 ** (MANTISSA_BITS - 1), 2**MANTISSA_BITS - 1
        if int(self.mantissa.min()) < low or int(self.mantissa.max()) > high:
            raise ProgramError(f"multiplier mantissas must lie in {low}..{high}, as those of float32 numbers do.")
        if int(self.exponent.min()) < MIN_EXPONENT or int(self.exponent.max()) > MAX_EXPONENT:
            raise ProgramError(f"multiplier exponents must lie in {MIN_EXPONENT}..{MAX_EXPONENT}.")

    @classmethod
    def from_float(cls, factors: Tensor) -> "Multiplier":
        """Take float32 factors apart. factors: float32 (O,) or (), positive."""
        check_dtype(factors, torch.float32, "multipliers")
        factors = factors.reshape(-1)
        if not bool((torch.isfinite(factors) & (factors >= 2.0**-126) & (factors < 2.0**31)).all()):
            raise ProgramError(
                f"a multiplier is {factors.min().item():.3g}..{factors.max().item():.3g}, outside 2^-126..2^31: the "
                "scales of the operation's inputs, weights and output lie too far apart; look for a layer whose range "
                "collapsed: one that gave nothing but zeros while it was observed."
            )
        return cls(*taken_apart(factors))

    @classmethod
    def from_scales(cls, input_scale: float, weight_scale: Tensor | float, output_scale: float) -> "Multiplier":
        """`fl32(fl32(input_scale * weight_scale) / output_scale)`, in this order: what the runtimes compute.

        weight_scale: float32 (O,), or a number for a single factor.
        """
        weight_scale = torch.as_tensor(weight_scale, dtype=torch.float32)
        scale = torch.tensor(input_scale, dtype=torch.float32) * weight_scale
        return cls.from_float(scale / torch.tensor(output_scale, dtype=torch.float32))

    def remade(self, input_scale: float, weight_scale: Tensor | float, output_scale: float) -> "Multiplier":
        """One of other scales."""
        return self.from_scales(input_scale, weight_scale, output_scale)

    def equals(self, other: object) -> bool:
        """Whether all factors are the same."""
        return (
            isinstance(other, Multiplier)
            and torch.equal(self.mantissa, other.mantissa)
            and torch.equal(self.exponent, other.exponent)
        )

    def to_float(self) -> Tensor:
        """The factors as float32 (O,); exact."""
        return torch.ldexp(self.mantissa.to(torch.float32), self.exponent)


@dataclass(frozen=True)
class SumMultipliers:
    """Factors of the two operands of an addition: `first / 2**shift` and `second / 2**shift`.

    They are so short that every product and every partial sum of the addition is an integer of at most 2^24 in units of
    2^-shift. So float32 adds without rounding, and the result is the same in any order, with or without fused
    multiply-add. Float32 kernels differ in just these: of ONNX Runtime's x86 kernels (MLAS qladd.cpp, qladd_avx2.cpp)
    the SSE2 one rounds each product, the AVX2 one fuses it with the sum, and a scalar operand is folded into the
    constant.
    The price is a ratio of scales rounded to 15 or 16 bits behind the point at 8-bit codes, 19 at 4-bit codes.
    """

    first: int
    second: int
    shift: int

    def __post_init__(self):
        if min(self.first, self.second) < 1 or max(self.first, self.second) >= 2**31 or not 0 <= self.shift <= 31:
            raise ProgramError(
                f"an addition has multipliers {self.first} and {self.second} over 2^{self.shift}; they lie in "
                "1..2^31-1 and the shift in 0..31, so the scales of its operands and its output are too far apart: "
                "give them nearer ranges."
            )

    @classmethod
    def from_grids(cls, first: Grid, second: Grid, output: Grid) -> "SumMultipliers":
        """The most accurate factors for which float32 adds codes of these grids without rounding."""
        for shift in range(31, -1, -1):
            factors = _ratio(first, output, shift), _ratio(second, output, shift)
            if _is_exact(*factors, shift, first, second, output):
                return cls(*factors, shift)
        raise ProgramError(
            f"an addition of scales {first.scale:.3g} and {second.scale:.3g} has an output of scale "
            f"{output.scale:.3g}, too fine for float32 sums; they are too far apart: look for an output whose range "
            "collapsed, that gave nothing but zeros while it was observed."
        )


def _ratio(operand: Grid, output: Grid, shift: int) -> int:
    # an operand too fine to move the output by a step keeps the finest factor there is (a constant that is all zero)
    return max(round(Fraction(operand.scale) / Fraction(output.scale) * 2**shift), 1)


def _is_exact(first: int, second: int, shift: int, first_grid: Grid, second_grid: Grid, output: Grid) -> bool:
    """Bound every product and partial sum of `zero_point - (first * z1 + second * z2) + first * c1 + second * c2`."""
    limit = 2**MANTISSA_BITS if max(first_grid.bits, second_grid.bits, output.bits) <= 8 else 2**40
    total = (output.zero_point + output.unsigned_offset) << shift
    for factor, grid in ((first, first_grid), (second, second_grid)):
        highest, zero_point = grid.quant_max + grid.unsigned_offset, grid.zero_point + grid.unsigned_offset
        if factor * highest > limit or factor >= 2**31:
            return False
        total += factor * max(zero_point, highest - zero_point)
    return total <= limit


def taken_apart(factors: Tensor) -> tuple[Tensor, Tensor]:
    """(mantissa, exponent) of float32 factors, int32: `mantissa * 2**exponent`."""
    fraction, exponent = torch.frexp(factors)
    mantissa = torch.ldexp(fraction, torch.tensor(MANTISSA_BITS)).to(torch.int32)
    return mantissa, exponent.to(torch.int32) - MANTISSA_BITS


def requantize(accumulators: Tensor, multiplier: Multiplier, grid: Grid, clamp_min: int, clamp_max: int) -> Tensor:
    """`clamp(round(fl32(fl32(acc) * M)) + zero_point)`, ties to even; to wide codes as `round_once` does.

    accumulators: int32 or int64 (..., O), below 2^31, for wide codes below 2^37; the channels of `multiplier` lie along
    the last dimension.
    Returns codes of `grid.dtype`, in clamp_min..clamp_max.
    """
    if grid.bits > NARROW_BITS:
        return requantize_once(accumulators, multiplier, grid, clamp_min, clamp_max)
    accumulators = _as_float_stores(accumulators)
    mantissa = multiplier.mantissa.to(accumulators.device, torch.int64)
    shift = -multiplier.exponent.to(torch.int64)
    fast = not is_traced() and int(shift.min()) >= 1 and int(shift.max()) <= _FAST_SHIFT
    shift = shift.to(accumulators.device)
    if fast:
        return _requantize_once(accumulators, mantissa, shift, grid, clamp_min, clamp_max)
    rounded = _round_twice(accumulators * mantissa, shift)
    return rounded.add_(grid.zero_point).clamp_(clamp_min, clamp_max).to(grid.dtype)


def requantize_once(sums: Tensor, multiplier: Multiplier, grid: Grid, clamp_min: int, clamp_max: int) -> Tensor:
    """`clamp(floor(sum * M + 1/2) + zero_point)`: what makes wide codes, and narrow ones of those.

    sums, result: as of `requantize`.
    """
    mantissa, exponent = (part.to(sums.device) for part in (multiplier.mantissa, multiplier.exponent))
    rounded = round_once(sums, mantissa, exponent)
    return rounded.add_(grid.zero_point).clamp_(clamp_min, clamp_max).to(grid.dtype)


def round_once(sums: Tensor, mantissa: Tensor, exponent: Tensor) -> Tensor:
    """`floor(sums * mantissa * 2**exponent + 1/2)`, int64.

    sums: whole numbers below 2^37. mantissa, exponent: those of float32 factors, which broadcast.
    """
    products = sums.to(torch.int64) * mantissa.to(torch.int64)
    shift = (-exponent.to(torch.int64)).clamp(max=LONGEST_WIDE_SHIFT)
    half = (torch.ones_like(shift) << shift.clamp(min=0)) >> 1
    return (products + half >> shift.clamp(min=0)) << (-shift).clamp(min=0)


def requantize_product(products: Tensor, multiplier: Multiplier, grid: Grid, clamp_min: int, clamp_max: int) -> Tensor:
    """`clamp(round(fl32(fl32(acc * M) + zero_point)))`, ties to even; the zero point is that of the code counted from
    0.

    products: integers (..., O), of at most 24 bits where codes have 8. Returns codes of `grid.dtype`.
    """
    mantissa = multiplier.mantissa.to(products.device, torch.int64)
    product = round_to_significant_bits(_as_float_stores(products) * mantissa, MANTISSA_BITS)
    exponent = multiplier.exponent.to(product.device, torch.int64)
    # Beyond 2^-38 a product vanishes beside any code: both roundings give the zero point, as a shift by 38 does.
    exponent = exponent.clamp(-62, MAX_EXPONENT)
    offset = grid.zero_point + grid.unsigned_offset
    fine = exponent.clamp(-38, 0)
    product = _round_half_even_shift(product, fine - exponent.clamp(max=0)) << exponent.clamp(min=0)
    total = round_to_significant_bits(product + (offset << -fine), MANTISSA_BITS)
    rounded = _round_half_even_shift(total, -fine) - grid.unsigned_offset
    return rounded.clamp_(clamp_min, clamp_max).to(grid.dtype)


def requantize_sum(
    first: Tensor, second: Tensor, factors: SumMultipliers, grid: Grid, clamp_min: int, clamp_max: int
) -> Tensor:
    """`clamp(round((first * M1 + second * M2) / 2**shift) + zero_point)`, ties of the sum with the zero point to even.

    first, second: codes less their zero points, integers (...); int32 of 8-bit codes is faster. The tie is broken on
    the code counted from 0 (`unsigned_offset` included), because that is the number that a runtime rounds.
    """
    offset = grid.zero_point + grid.unsigned_offset
    # 8-bit codes add up to at most 2^24 in units of 2^-shift (`SumMultipliers`); halves and ones are lost in int32.
    narrow = first.dtype == second.dtype == torch.int32 and grid.bits <= 8 and factors.shift < 31
    dtype = torch.int32 if narrow else torch.int64
    total = first.to(dtype) * factors.first + second.to(dtype) * factors.second
    total += offset << factors.shift
    if factors.shift:
        half = 1 << (factors.shift - 1)
        total += ((total >> factors.shift) & 1) + (half - 1)  # a tie moves up only to an even number
    rounded = (total >> factors.shift).sub_(grid.unsigned_offset)
    return rounded.clamp_(clamp_min, clamp_max).to(grid.dtype)


def round_to_significant_bits(values: Tensor, bits: int) -> Tensor:
    """Round int64 `values` to `bits` significant bits, ties to even; what storing them in a float does."""
    excess = (bit_length(values) - bits).clamp_(min=0)
    return _round_half_even_shift(values, excess) << excess


def bit_length(values: Tensor) -> Tensor:
    """Bits of the magnitude of int64 `values`, 0 for 0."""
    rest, length = values.abs(), torch.zeros_like(values)
    for step in (32, 16, 8, 4, 2, 1):
        taken = (rest >> step > 0) * step
        length += taken
        rest >>= taken
    return length + rest


def _as_float_stores(accumulators: Tensor) -> Tensor:
    """fl32(acc), int64."""
    if is_traced():
        return round_to_significant_bits(accumulators.to(torch.int64), MANTISSA_BITS)
    lowest, highest = torch.aminmax(accumulators)
    accumulators = accumulators.to(torch.int64)
    if max(-int(lowest), int(highest)) >= 2**MANTISSA_BITS:
        return round_to_significant_bits(accumulators, MANTISSA_BITS)
    return accumulators


def _round_twice(products: Tensor, shift: Tensor) -> Tensor:
    """round(fl32(products) / 2**shift), ties to even. products: |int64| < 2^56. shift: int64, at least -7."""
    stored = round_to_significant_bits(products, MANTISSA_BITS)
    return _round_half_even_shift(stored, shift.clamp(0, 62)) << (-shift).clamp_(min=0)


def _requantize_once(
    accumulators: Tensor, mantissa: Tensor, shift: Tensor, grid: Grid, clamp_min: int, clamp_max: int
) -> Tensor:
    """`requantize` in few passes. accumulators: as float32 stores them, int64. shift: int64, at least 1.

    Storing a product in 24 bits moves it by at most half a unit of its last place, for results that a grid can hold;
    others saturate. Only where it then comes to lie on, or beyond, a tie can the second rounding come out differently:
    those few are computed again in full.
    """
    step = torch.ones_like(shift) << shift
    movement = torch.ones_like(shift) << (shift + (grid.bits + 2 - MANTISSA_BITS)).clamp_(min=0)
    raised = torch.addcmul((step >> 1) + grid.zero_point * step, accumulators, mantissa)
    doubtful = (raised + movement).bitwise_and_(step - 1) <= 2 * movement
    codes = raised.bitwise_right_shift_(shift).clamp_(clamp_min, clamp_max)
    places = doubtful.nonzero(as_tuple=True)
    if len(places[0]):
        products = accumulators[places] * mantissa.expand_as(accumulators)[places]
        exact = _round_twice(products, shift.expand_as(accumulators)[places])
        codes[places] = exact.add_(grid.zero_point).clamp_(clamp_min, clamp_max)
    return codes.to(grid.dtype)


def _round_half_even_shift(values: Tensor, shift: Tensor) -> Tensor:
    """round(values / 2**shift), ties to even. values: |int64| < 2^61. shift: int64, 0..62."""
    floor = values >> shift
    # Half a step, less one where the floor is even: a tie then moves up only to an even number.
    half = (torch.ones_like(shift) << shift) >> 1
    odd = floor & 1
    return torch.where(shift > 0, (values + half - 1 + odd) >> shift, values)
