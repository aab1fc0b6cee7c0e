"""What an integer program is made of besides operations: grids, values, constants and quantized weights."""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy
import torch
from torch import Tensor

from qat.errors import ProgramError
from qat.integer.lengths import at_lengths

#: Widest activation code. Two 16-bit factors still multiply inside int64 with room for their sum.
MAX_ACTIVATION_BITS = 16
WEIGHT_BITS = range(2, 9)
INT8_MIN, INT8_MAX = -128, 127
#: Bounds on what a file may claim; far above any network, low enough that nothing huge is allocated or walked.
MAX_RANK = 8
MAX_ELEMENTS = 2**31
MAX_NAME_LENGTH = 512


def float32(value: float) -> float:
    """`value` rounded to the nearest float32, ties to even; out of range becomes infinite."""
    with numpy.errstate(over="ignore"):
        return float(numpy.float32(value))


def check_scale(scale: float, what: str) -> None:
    """Refuse a scale that is not a positive, finite, normal float32."""
    if not isinstance(scale, float) or not math.isfinite(scale) or scale < 2.0**-126 or float32(scale) != scale:
        raise ProgramError(
            f"{what} has scale {scale!r}; a scale is a positive normal float32, rounded as float32(scale)."
        )


def check_name(name: str, what: str) -> None:
    """Refuse what is not a short printable string."""
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME_LENGTH or not name.isprintable():
        raise ProgramError(
            f"the name of {what} is {str(name)[:40]!r}; use 1 to {MAX_NAME_LENGTH} printable characters."
        )


@dataclass(frozen=True)
class Grid:
    """`real = scale * (code - zero_point)` for codes in quant_min..quant_max.

    scale: real units per step, exactly a float32.
    """

    scale: float
    zero_point: int
    quant_min: int
    quant_max: int

    def __post_init__(self):
        check_scale(self.scale, "a grid")
        limit = 2**MAX_ACTIVATION_BITS
        lowest, highest = (0, limit - 1) if self.quant_min >= 0 else (-limit // 2, limit // 2 - 1)
        if not lowest <= self.quant_min < self.quant_max <= highest:
            raise ProgramError(
                f"a grid has codes {self.quant_min}..{self.quant_max}; "
                f"they must ascend and fit {MAX_ACTIVATION_BITS} bits."
            )
        if not self.quant_min <= self.zero_point <= self.quant_max:
            raise ProgramError(
                f"a grid has zero_point {self.zero_point} outside its codes {self.quant_min}..{self.quant_max}; "
                "widen the range so that 0.0 is on the grid."
            )

    @property
    def bits(self) -> int:
        """Width that holds every code."""
        if self.quant_min >= 0:
            return self.quant_max.bit_length()
        return max((-self.quant_min - 1).bit_length(), self.quant_max.bit_length()) + 1

    @property
    def dtype(self) -> torch.dtype:
        """Smallest integer dtype that the interpreter keeps codes of this grid in."""
        if self.bits <= 8:
            return torch.int8 if self.quant_min < 0 else torch.uint8
        return torch.int16 if self.quant_min < 0 else torch.int32

    @property
    def unsigned_offset(self) -> int:
        """What to add to a code so that codes start at 0, as in the uint8 tensors of runtimes; 0 for unsigned grids."""
        return max(0, -self.quant_min)

    @property
    def reach(self) -> tuple[int, int]:
        """Smallest and largest `code - zero_point`."""
        return self.quant_min - self.zero_point, self.quant_max - self.zero_point


@dataclass(frozen=True)
class IndexRange:
    """Integers 0..count - 1 that stand for themselves: token ids, positions, masks, results of an argmax.

    What a `Grid` is for codes of real numbers, but without a scale. Such tensors are int64 inside and outside.
    """

    count: int

    def __post_init__(self):
        if not isinstance(self.count, int) or isinstance(self.count, bool) or not 1 <= self.count <= MAX_ELEMENTS:
            raise ProgramError(f"an index range counts {self.count!r}; it has 1 to {MAX_ELEMENTS} integers.")

    @property
    def quant_min(self) -> int:
        """The smallest integer."""
        return 0

    @property
    def quant_max(self) -> int:
        """The largest integer."""
        return self.count - 1

    @property
    def zero_point(self) -> int:
        """What a pad writes."""
        return 0

    @property
    def bits(self) -> int:
        """Width that holds every integer."""
        return max(self.quant_max.bit_length(), 1)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of every index."""
        return torch.int64


AnyGrid = Grid | IndexRange


@dataclass(frozen=True)
class Value:
    """One integer tensor of the program. shape: without dimension 0, which is the batch and has any size.

    A size that follows the length of an input is a `qat.integer.lengths.Length`.
    grid: what its codes stand for; an `IndexRange` where they are no real numbers.
    """

    name: str
    shape: tuple[int, ...]
    grid: Grid | IndexRange

    def __post_init__(self):
        check_name(self.name, "a value")
        check_shape(self.shape, f"value {self.name!r}")


@dataclass(frozen=True, eq=False)
class Constant:
    """An integer tensor that is the same in every run, an operand of an operation that also takes a value.

    codes: integer tensor (no batch dimension), broadcast over the batch.
    sizes: its shape, where some of it are a `Length`: shorter inputs take as much from the front. () where none is.
    """

    name: str
    grid: Grid | IndexRange
    codes: Tensor
    sizes: tuple[int, ...] = ()

    def __post_init__(self):
        check_name(self.name, "a constant")
        check_shape(self.shape, f"constant {self.name!r}")
        check_dtype(self.codes, self.grid.dtype, f"the codes of constant {self.name!r}")
        check_range(self.codes, self.grid.quant_min, self.grid.quant_max, f"the codes of constant {self.name!r}")
        if self.sizes and self.sizes != tuple(self.codes.shape):
            raise ProgramError(f"constant {self.name!r} has sizes {self.sizes} and codes of {tuple(self.codes.shape)}.")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the codes, without a batch dimension."""
        return self.sizes or tuple(self.codes.shape)

    def at(self, lengths: Mapping[str, int]) -> "Constant":
        """What inputs of these lengths, by symbol, take of it."""
        if not self.sizes:
            return self
        cut = tuple(slice(size) for size in at_lengths(self.sizes, lengths))
        return Constant(self.name, self.grid, self.codes[cut])


@dataclass(frozen=True)
class WeightGrid:
    """How stored codes of `bits` become the int8 weights of a kernel: `weight = code * step + offset`.

    Narrow weights are scaled up inside int8 because the step of the bias is (input scale) * (weight scale): 4-bit codes
    with step 16 make the bias 16 times finer. The 2-bit levels without a zero, {-3, -1, 1, 3} * 32, are the codes -2..1
    with step 64 and offset 32.
    """

    bits: int
    step: int = 1
    offset: int = 0

    def __post_init__(self):
        if self.bits not in WEIGHT_BITS:
            raise ProgramError(f"weights have {self.bits} bits; an integer kernel takes 2 to 8.")
        lowest, highest = (
            self.offset - self.step * 2 ** (self.bits - 1),
            self.offset + self.step * (2 ** (self.bits - 1) - 1),
        )
        if self.step < 1 or lowest < INT8_MIN or highest > INT8_MAX:
            raise ProgramError(
                f"weights of {self.bits} bits with step {self.step} and offset {self.offset} reach "
                f"{lowest}..{highest}; the step is at least 1 and the reach inside {INT8_MIN}..{INT8_MAX}."
            )

    def kernel(self, codes: Tensor) -> Tensor:
        """The int8 weights that a kernel multiplies with, of int8 codes."""
        if self.step == 1 and self.offset == 0:
            return codes
        return (codes.to(torch.int16) * self.step + self.offset).to(torch.int8)


@dataclass(frozen=True, eq=False)
class Weight:
    """Quantized weights: `real = scale * (code * step + offset)`, one scale per output channel (dimension 0).

    codes: int8 (O, ...), in -2^(bits-1)..2^(bits-1)-1. scale: float32 (O,), per unit of the kernel's int8 weight.
    """

    codes: Tensor
    grid: WeightGrid
    scale: Tensor

    def __post_init__(self):
        check_dtype(self.codes, torch.int8, "weight codes")
        check_dtype(self.scale, torch.float32, "weight scales")
        if self.codes.dim() < 2 or self.scale.shape != self.codes.shape[:1] or not self.codes.numel():
            raise ProgramError(
                f"weight codes of shape {tuple(self.codes.shape)} with scales of shape {tuple(self.scale.shape)}; "
                "codes are (O, ...) and scales (O,), none empty."
            )
        half = 2 ** (self.grid.bits - 1)
        check_range(self.codes, -half, half - 1, f"weight codes of {self.grid.bits} bits")
        if not bool((torch.isfinite(self.scale) & (self.scale >= 2.0**-126)).all()):
            raise ProgramError(
                "weight scales must be positive normal float32 numbers; a channel of zeros takes any scale."
            )

    @functools.cached_property
    def kernel(self) -> Tensor:
        """The int8 weights that a kernel multiplies with, in the shape of the codes."""
        return self.grid.kernel(self.codes)

    @functools.cached_property
    def kernel_sums(self) -> Tensor:
        """Sums of the kernel's weights per output channel, int32 (O,)."""
        return self.kernel.flatten(1).sum(1, dtype=torch.int32)

    @property
    def packed_bytes(self) -> int:
        """Bytes that the codes take at their true width."""
        return (self.codes.numel() * self.grid.bits + 7) // 8


def check_shape(shape: tuple[int, ...], what: str) -> None:
    """Refuse shapes of absurd rank or size."""
    sizes_are_whole = all(isinstance(size, int) and not isinstance(size, bool) and size >= 1 for size in shape)
    if len(shape) > MAX_RANK or not sizes_are_whole or math.prod(shape) > MAX_ELEMENTS:
        raise ProgramError(
            f"{what} has shape {str(tuple(shape))[:80]}; "
            f"at most {MAX_RANK} dimensions of at least 1, {MAX_ELEMENTS} elements in all."
        )


def check_dtype(tensor: Tensor, dtype: torch.dtype, what: str) -> None:
    """Refuse a tensor of another dtype."""
    if not isinstance(tensor, Tensor) or tensor.dtype != dtype:
        raise ProgramError(f"{what} must be {dtype}, not {getattr(tensor, 'dtype', type(tensor).__name__)}.")


def check_range(codes: Tensor, lowest: int, highest: int, what: str) -> None:
    """Refuse codes outside lowest..highest."""
    if codes.numel() and (int(codes.min()) < lowest or int(codes.max()) > highest):
        raise ProgramError(f"{what} reach {int(codes.min())}..{int(codes.max())}, outside {lowest}..{highest}.")
