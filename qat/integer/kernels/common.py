"""What several kernels need: centered codes, padding, the positions of a window."""

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

from qat.integer.values import Grid


def accumulator_dtype(grid: Grid) -> torch.dtype:
    """An integer dtype in which no checked sum of codes of `grid` overflows."""
    return torch.int32 if grid.bits <= 8 else torch.int64


def centered(codes: Tensor, grid: Grid) -> Tensor:
    """codes - zero_point, so that real zero is 0."""
    return codes.to(accumulator_dtype(grid)) - grid.zero_point


def pad(codes: Tensor, padding, value: int) -> Tensor:
    """padding: (before, after) for each of the last dimensions."""
    if not any(itertools.chain(*padding)):
        return codes
    flat = [amount for pair in reversed(padding) for amount in pair]
    return torch.nn.functional.pad(codes, flat, value=value)


def window_positions(padded: Tensor, kernel_size, stride, dilation) -> Iterator[Tensor]:
    """For each position in the window, the elements (N, C, *windows) that lie there."""
    windows = [
        (size - spread * (kernel - 1) - 1) // step + 1
        for size, kernel, step, spread in zip(padded.shape[2:], kernel_size, stride, dilation, strict=True)
    ]
    for place in itertools.product(*map(range, kernel_size)):
        cuts = tuple(
            slice(offset * spread, offset * spread + (count - 1) * step + 1, step)
            for offset, spread, count, step in zip(place, dilation, windows, stride, strict=True)
        )
        yield padded[(..., *cuts)]
