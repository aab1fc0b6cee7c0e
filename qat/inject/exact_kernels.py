"""What the eval forward leaves to the kernels of the integer program: computations that are no sums of products."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from qat.inject.exact import code_bounds, steps, straight_through
from qat.integer.kernels import compute
from qat.integer.operations import Operation
from qat.integer.values import Grid

#: Makes an operation, given its output grid, the bounds of its codes and how many operands it has.
Make = Callable[[Grid, int, int, int], Operation]


@dataclass
class Computed:
    """A computation that waits for the quantizer behind it.

    make: the operation, once its output grid is known. codes: of its operands, None for one that is left out. grids:
    theirs. low, high: real bounds of the activations fused behind it.
    """

    make: Make
    codes: tuple[Tensor | None, ...]
    grids: tuple[Grid, ...]
    low: float = -math.inf
    high: float = math.inf

    def bound(self, low: float, high: float) -> None:
        """Fuse a clamp to low..high behind it."""
        self.low, self.high = (max(min(value, high), low) for value in (self.low, self.high))

    def quantize(self, real: Tensor, grid: Grid) -> Tensor:
        """The real values, float32, of the codes that the kernel makes. real: what floats made instead."""
        with torch.no_grad():
            lowest, highest = code_bounds(self.low, self.high, grid)
            present = [pair for pair in zip(self.codes, self.grids, strict=True) if pair[0] is not None]
            operands, sources = zip(*present, strict=True)
            operation = self.make(grid, lowest, highest, len(present))
            codes = compute(operation, operands, sources, grid)
            exact = (codes.reshape(real.shape).to(torch.int32) - grid.zero_point).float() * grid.scale
        if not real.requires_grad:
            return exact
        low, high = ((code - grid.zero_point) * grid.scale for code in (lowest, highest))
        return straight_through(real, exact, (real >= low) & (real <= high))


def codes_of(real: Tensor, grid: Grid) -> Tensor:
    """Codes of a value on `grid`, of the grid's dtype; what lies outside takes the nearest."""
    whole = steps(real.detach(), grid) + grid.zero_point
    return whole.clamp_(grid.quant_min, grid.quant_max).to(grid.dtype)
