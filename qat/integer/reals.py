"""Real numbers and their codes: what happens where a program meets them, at its edges and at its float islands."""

import torch
from torch import Tensor

from qat.integer.values import AnyGrid, IndexRange


def quantize(real: Tensor, grid: AnyGrid, by_reciprocal: bool = False) -> Tensor:
    """clamp(round_half_even(fl32(real / scale)) + zero_point), as codes of `grid.dtype`. real: float32.

    by_reciprocal: multiply by fl32(1 / scale) instead, which rounds otherwise in the last place. Indices are their own
    codes.
    """
    if isinstance(grid, IndexRange):
        return real.to(grid.dtype)
    lowest, highest = grid.reach
    scale = torch.tensor(grid.scale, dtype=torch.float32, device=real.device)
    steps = torch.round(real * (1 / scale) if by_reciprocal else real / scale).clamp_(lowest, highest)
    return (steps.to(torch.int32) + grid.zero_point).to(grid.dtype)


def dequantize(codes: Tensor, grid: AnyGrid) -> Tensor:
    """fl32(scale * (code - zero_point)), float32; indices as they are, int64."""
    if isinstance(grid, IndexRange):
        return codes.to(grid.dtype)
    scale = torch.tensor(grid.scale, dtype=torch.float32, device=codes.device)
    return (codes.to(torch.int32) - grid.zero_point).to(torch.float32) * scale
