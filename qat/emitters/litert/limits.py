"""How codes are held in int8 and int16 tensors, and by which means they are kept inside of their limits.

A tensor holds `code + offset`. int8 saturates at -128 and 127, for nothing; a relu fused into an operation limits codes
from below at the zero point, for nothing either. What else is asked for takes a Quantize from the scale to the same
scale with another zero point: in a tensor whose zero point is higher by 127 - limit, the limit is where int8 ends.

Tensors of 16-bit codes have the zero point 0, and operators for what no activation limits.
"""

from dataclasses import dataclass

import numpy
from ai_edge_litert import schema_py_generated as schema

from qat.integer.fixed_point import NARROW_BITS
from qat.integer.values import AnyGrid, Grid

LOW, HIGH = -128, 127
WIDE_LOW, WIDE_HIGH = -(2**15), 2**15 - 1
Activation = schema.ActivationFunctionType
#: Real bounds of the activations that operators may have fused.
BOUNDS = {
    Activation.NONE: (None, None),
    Activation.RELU: (0.0, None),
    Activation.RELU6: (0.0, 6.0),
    Activation.RELU_N1_TO_1: (-1.0, 1.0),
}


def offset_of(grid: Grid) -> int:
    """What a tensor adds to a code.

    The last code of a grid is the end of int8, as no relu limits it; tensors of wider codes have zero point 0.
    """
    return -grid.zero_point if is_wide(grid) else HIGH - grid.quant_max


def is_wide(grid: AnyGrid) -> bool:
    """Whether codes take an int16 tensor."""
    return isinstance(grid, Grid) and grid.bits > NARROW_BITS


@dataclass(frozen=True)
class Stage:
    """One tensor on the way to a result: its zero point, and the activation of the operator that writes it."""

    zero_point: int
    activation: int = Activation.NONE


def stages(grid: Grid, clamp_min: int, clamp_max: int, fuses: bool) -> list[Stage] | None:
    """The tensors of a result, the final one last; a Quantize leads from each to the next.

    clamp_min, clamp_max: codes. fuses: whether the operator that writes the first may have an activation. None where
    the limits leave out zero, which no zero point then stands for.
    """
    offset = offset_of(grid)
    low, high, zero_point = (number + offset for number in (clamp_min, clamp_max, grid.zero_point))
    if not low <= zero_point <= high:
        return None
    for activation in BOUNDS if fuses else (Activation.NONE,):
        if _limits(grid.scale, zero_point, activation) == (low, high):
            return [Stage(zero_point, activation)]
    raised, lowered = zero_point + HIGH - high, zero_point - (low - LOW)
    if fuses and low == zero_point:
        return [Stage(raised, Activation.RELU), Stage(zero_point)]
    if low == LOW:
        return [Stage(raised), Stage(zero_point)]
    if high == HIGH:
        return [Stage(lowered), Stage(zero_point)]
    return [Stage(raised), Stage(lowered), Stage(zero_point)]


def wide_limits(grid: Grid, clamp_min: int, clamp_max: int, fuses: bool) -> tuple[int, int | None, int | None]:
    """How the 16-bit codes of a result are limited: (activation, what MAXIMUM takes, what MINIMUM takes).

    The activation leaves as few of the two as possible. fuses: whether the operator may have one.
    """
    found = []
    for activation in BOUNDS if fuses else (Activation.NONE,):
        limits = _limits(grid.scale, 0, activation, (WIDE_LOW, WIDE_HIGH))
        if limits is not None and limits[0] <= clamp_min and clamp_max <= limits[1]:
            low = None if limits[0] == clamp_min else clamp_min
            high = None if limits[1] == clamp_max else clamp_max
            found.append((activation, low, high))
    return min(found, key=lambda limits: (limits[1] is not None) + (limits[2] is not None))


def _limits(
    scale: float, zero_point: int, activation: int, whole: tuple[int, int] = (LOW, HIGH)
) -> tuple[int, int] | None:
    """The smallest and the largest number of a tensor behind an activation; None where kernels round a tie apart."""
    ends, (low, high) = [], whole
    for bound, end in zip(BOUNDS[activation], whole, strict=True):
        steps = 0.0 if bound is None else bound / scale
        if abs(steps % 1 - 0.5) < 1e-3:
            return None
        ends.append(end if bound is None else min(max(round(steps) + zero_point, low), high))
    return ends[0], ends[1]


def whole_steps(numbers: numpy.ndarray) -> tuple[numpy.ndarray, int]:
    """Integers over the largest power of two that divides all of them, and that; a scale times it stays exact."""
    step = int(numpy.gcd.reduce(numbers, axis=None)) or 1
    step &= -step
    return numbers // step, step
