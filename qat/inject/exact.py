"""The eval forward, code for code as the integers will compute it.

A fake-quantized forward in float32 is nearly what the integer program computes: rounding of the float sums moves a
few codes per million, and layers amplify them. But before every quantizer stands a computation whose result is a whole
number of known units: a sum of products of codes, a sum of codes, a product. So in eval mode the float result is first
rounded to that whole number, and the code is then made by the program's own arithmetic, in float32, whose operations
are the runtime's by IEEE 754: `round(fl32(fl32(n) * M)) + zero_point`. Activations fused behind it are bounds.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from qat import folding
from qat.integer.fixed_point import NARROW_BITS, round_once, taken_apart
from qat.integer.half_up import HalfUpMultipliers
from qat.integer.semantics import USUAL, Semantics
from qat.integer.sixteen_bits import FixedSum, factor_parts, multiplied
from qat.integer.values import Grid, float32
from qat.quantizers import FakeQuantize

#: The kind of the `FixedMultiplier` by which a runtime rescales to codes of a grid; None for a float32 factor.
Kind = Callable[[Grid], str | None]


def no_kind(_: Grid) -> None:
    """Of runtimes without kernels for 16-bit codes."""


@dataclass
class Accumulator:
    """A computation that waits for the quantizer behind it.

    unit: real units per whole number, broadcastable. rescale: whole numbers (float64) and the output grid to codes that
    are not clamped yet. whole: the whole numbers, float64, where they are known; else the real result is rounded to
    them. low, high: real bounds of the activations fused behind it. times: the same multiplied by a number.
    """

    unit: Tensor | Callable[[Grid], float]
    rescale: Callable[[Tensor, Grid], Tensor]
    whole: Tensor | None = None
    low: float = -math.inf
    high: float = math.inf
    times: "Callable[[float], Accumulator] | None" = None

    def bound(self, low: float, high: float) -> None:
        """Fuse a clamp to low..high behind it."""
        self.low, self.high = (max(min(value, high), low) for value in (self.low, self.high))

    def quantize(self, real: Tensor, grid: Grid) -> Tensor:
        """The real values of the codes that the integers will have for `real`, float32."""
        with torch.no_grad():
            whole = self.whole
            if whole is None:
                unit = self.unit(grid) if callable(self.unit) else self.unit
                whole = torch.round(real.double() / unit)
            unclamped = self.rescale(whole, grid)
            codes = unclamped.clamp(*code_bounds(self.low, self.high, grid))
            exact = (codes - grid.zero_point).float() * grid.scale
        return straight_through(real, exact, codes == unclamped) if real.requires_grad else exact


def straight_through(real: Tensor, exact: Tensor, inside: Tensor) -> Tensor:
    """`exact`, with the gradient of `real` where `inside`: a network in eval mode may still be differentiated."""
    return _StraightThrough.apply(real, exact, inside)


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx, real, exact, inside):
        ctx.save_for_backward(inside)
        ctx.dtype = real.dtype
        return exact

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        (inside,) = ctx.saved_tensors
        return (gradient * inside).to(ctx.dtype), None, None


def grid_of(quantizer: FakeQuantize) -> Grid:
    """The grid of a per-tensor quantizer."""
    parameters = quantizer.qparams()
    return Grid(float(parameters.scale), int(parameters.zero_point), parameters.quant_min, parameters.quant_max)


def number_grid(number: float) -> Grid:
    """The grid on which a number beside a value is the single code 1 (or -1, or 0)."""
    return Grid(float32(abs(number)) or 1.0, 0, -127, 127)


def code_of(bound: float, grid: Grid) -> int:
    """The code of a real bound, not clamped to the grid unless the bound is infinite."""
    if math.isinf(bound):
        return grid.quant_min if bound < 0 else grid.quant_max
    return int(torch.round(torch.tensor(bound, dtype=torch.float32) / grid.scale)) + grid.zero_point


def code_bounds(low: float, high: float, grid: Grid) -> tuple[int, int]:
    """(smallest, largest) code of a grid that real bounds leave; one code where they lie outside of the grid."""
    lowest, highest = (min(max(code_of(bound, grid), grid.quant_min), grid.quant_max) for bound in (low, high))
    return lowest, highest


def weighted(
    input_scale: Tensor,
    kernel_scale: Tensor,
    channel_shape: tuple[int, ...],
    whole: Tensor | None = None,
    kind: Kind = no_kind,
) -> Accumulator:
    """Sums of products with weights. kernel_scale: of the kernel's integers, batch norm folded in, (O,) or ().

    channel_shape: to broadcast (O,) against the result. whole: the sums, where they are known.
    """
    kernel_scale = kernel_scale.reshape(channel_shape if kernel_scale.dim() else ())
    unit = input_scale * kernel_scale

    def rescale(whole: Tensor, grid: Grid) -> Tensor:
        if kind(grid) is not None:
            return _fixed_code(kind(grid), whole, input_scale, kernel_scale, grid)
        return _sum_code(whole, _per_step(unit, grid), grid)

    return Accumulator(unit.double(), rescale, whole)


def sum_of_codes(input_grid: Grid, count: int, kind: Kind = no_kind) -> Accumulator:
    """Means: the whole number is the sum of `count` codes less their zero points."""
    share = float32(1 / count)
    multiplier = torch.tensor(input_grid.scale, dtype=torch.float32) * share
    unit = torch.tensor(input_grid.scale, dtype=torch.float64) / count

    def rescale(whole: Tensor, grid: Grid) -> Tensor:
        if kind(grid) is not None:
            return _fixed_code(kind(grid), whole, input_grid.scale, share, grid)
        return _sum_code(whole, _per_step(multiplier, grid), grid)

    return Accumulator(unit, rescale)


def product(first_scale: float, second_scale: float, rounds_first: bool = False, kind: Kind = no_kind) -> Accumulator:
    """A product of codes, or a code times a number (`second_scale`). rounds_first: as of `Mul`."""
    code = _sum_code if rounds_first else _product_code
    multiplier = torch.tensor(first_scale, dtype=torch.float32) * second_scale
    unit = torch.tensor(first_scale, dtype=torch.float64) * second_scale

    def rescale(whole: Tensor, grid: Grid) -> Tensor:
        if kind(grid) is not None:
            return _fixed_code(kind(grid), whole, first_scale, second_scale, grid)
        return code(whole, _per_step(multiplier, grid), grid)

    return Accumulator(unit, rescale)


def product_of_matrices(
    first_scale: float,
    second_scale: float,
    whole: Tensor,
    factor: float = 1.0,
    once: bool = False,
    kind: Kind = no_kind,
) -> Accumulator:
    """Sums of products of two values' codes, times a number. whole: the sums, float64. once: `MatMul.rounds_once`."""
    scaled = float32(second_scale * float32(factor))
    multiplier = torch.tensor(first_scale, dtype=torch.float32) * scaled

    def times(number: float) -> Accumulator:
        return product_of_matrices(first_scale, second_scale, whole, factor * number, once, kind)

    def rescale(whole: Tensor, grid: Grid) -> Tensor:
        if kind(grid) is not None:
            return _fixed_code(kind(grid), whole, first_scale, scaled, grid)
        return _sum_code(whole, _per_step(multiplier, grid), grid, once)

    return Accumulator(multiplier.double(), rescale, whole, times=times)


def addition(
    first: Tensor,
    first_grid: Grid,
    second: Tensor,
    second_grid: Grid,
    output: Grid,
    semantics: Semantics = USUAL,
) -> tuple[Tensor, Accumulator]:
    """(the sum in real units, its accumulator): the integers add with short multipliers, not with the scales."""
    factors = semantics.factors(first_grid, second_grid, output)
    if isinstance(factors, HalfUpMultipliers):
        return _half_up(steps(first, first_grid), steps(second, second_grid), factors, output)
    if isinstance(factors, FixedSum):
        return _fixed_sum(steps(first, first_grid), steps(second, second_grid), factors, output)
    whole = steps(first, first_grid) * factors.first + steps(second, second_grid) * factors.second
    unit = output.scale / 2**factors.shift

    def rescale(whole: Tensor, grid: Grid) -> Tensor:
        offset = grid.zero_point + grid.unsigned_offset
        return torch.round(whole / 2**factors.shift + offset) - grid.unsigned_offset

    return whole * unit, Accumulator(torch.tensor(unit, dtype=torch.float64), rescale)


def _half_up(first: Tensor, second: Tensor, factors: HalfUpMultipliers, output: Grid) -> tuple[Tensor, Accumulator]:
    whole = first * factors.first_factor + second * factors.second_factor
    unit = output.scale / 2**factors.shift

    def rescale(whole: Tensor, grid: Grid) -> Tensor:
        return torch.floor(whole / 2**factors.shift + 0.5) + grid.zero_point

    return whole * unit, Accumulator(torch.tensor(unit, dtype=torch.float64), rescale)


def _fixed_sum(first: Tensor, second: Tensor, factors: FixedSum, output: Grid) -> tuple[Tensor, Accumulator]:
    whole = factors.sums(first, second).double()
    unit = output.scale * factors.sum_factor

    def rescale(whole: Tensor, grid: Grid) -> Tensor:
        return factors.steps(whole).double() + grid.zero_point

    return whole * unit, Accumulator(torch.tensor(unit, dtype=torch.float64), rescale)


def by_reciprocal(real: Tensor, scale: Tensor) -> Tensor:
    """`real` on the multiples of `scale` that a quantizer finds which multiplies by fl32(1 / scale); float32."""
    with torch.no_grad():
        exact = torch.round(real.float() * (1 / scale)) * scale
    return straight_through(real, exact, torch.ones_like(real, dtype=torch.bool)) if real.requires_grad else exact


def normalized(
    input_scale: Tensor, batch_norm: folding.BatchNorm, channel_shape: tuple[int, ...], kind: Kind = no_kind
) -> Accumulator:
    """A batch norm that stands alone: a depthwise convolution with the weight 127."""
    multiplier, shift = batch_norm.affine(None)
    kernel_scale, _ = folding.fold_scale(input_scale, torch.tensor(1 / 127), multiplier, shift)
    return weighted(input_scale, kernel_scale, channel_shape, kind=kind)


def steps(real: Tensor, grid: Grid) -> Tensor:
    """Codes less their zero point, float64."""
    return torch.round(_per_step(real.float(), grid)).double()


def _per_step(real: Tensor, grid: Grid) -> Tensor:
    """`real` over the grid's scale, as a tensor: a GPU divides by a Python number with its reciprocal."""
    return real / torch.tensor(grid.scale, dtype=torch.float32, device=real.device)


def _sum_code(whole: Tensor, multiplier: Tensor, grid: Grid, once: bool = False) -> Tensor:
    if once or grid.bits > NARROW_BITS:
        return round_once(whole, *taken_apart(multiplier)) + grid.zero_point
    return torch.round(whole.float() * multiplier) + grid.zero_point


def _fixed_code(
    kind: str, whole: Tensor, input_scale: Tensor | float, weight_scale: Tensor | float, grid: Grid
) -> Tensor:
    scales = (torch.as_tensor(scale, device=whole.device) for scale in (input_scale, weight_scale, grid.scale))
    return multiplied(kind, whole, *factor_parts(kind, *scales)).double() + grid.zero_point


def _product_code(whole: Tensor, multiplier: Tensor, grid: Grid) -> Tensor:
    offset = grid.zero_point + grid.unsigned_offset
    return torch.round(whole.float() * multiplier + offset) - grid.unsigned_offset
