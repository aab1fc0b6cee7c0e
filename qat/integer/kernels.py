"""Integer kernels: sums of products, pooling and moving of codes, on integer tensors alone.

Codes are (N, ...) tensors of their grid's dtype. 8-bit products run as int8 x int8 -> int32 matrix products; wider
codes take the same way in int64, exact and slower.
"""

import functools
import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

from qat.integer.fixed_point import Multiplier, requantize
from qat.integer.operations import AveragePool, Conv, Linear, MaxPool, Mean
from qat.integer.values import Grid

#: Elements rescaled at a time: their int64 intermediates stay in a core's cache.
_RESCALE_CHUNK = 2**16


def convolve(codes: Tensor, operation: Conv, input_grid: Grid, output_grid: Grid) -> Tensor:
    """codes: (N, C, *spatial). Returns codes (N, O, *windows)."""
    if operation.groups == 1:
        accumulators = _convolve_dense(codes, operation, input_grid)
    else:
        accumulators = _convolve_grouped(codes, operation, input_grid)
    return _rescale(accumulators, operation, output_grid).movedim(-1, 1).contiguous()


def linear(codes: Tensor, operation: Linear, input_grid: Grid, output_grid: Grid) -> Tensor:
    """codes: (N, ..., K). Returns codes (N, ..., O)."""
    kernel = operation.weight.kernel
    accumulators = _matmul(codes.flatten(0, -2), kernel, input_grid) + operation.bias
    return _rescale(accumulators, operation, output_grid).reshape(*codes.shape[:-1], len(kernel))


def average_pool(codes: Tensor, operation: AveragePool, input_grid: Grid, output_grid: Grid) -> Tensor:
    """codes: (N, C, *spatial). Returns codes (N, C, *windows)."""
    padded = _pad(_centered(codes, input_grid), operation.padding, 0)
    ones = (1,) * len(operation.kernel_size)
    total = sum(_window_positions(padded, operation.kernel_size, operation.stride, ones))
    return _rescale(total.unsqueeze(-1), operation, output_grid).squeeze(-1)


def mean(codes: Tensor, operation: Mean, input_grid: Grid, output_grid: Grid) -> Tensor:
    """codes: (N, ...). Returns codes with `operation.dims` reduced."""
    total = _centered(codes, input_grid).sum(operation.dims, keepdim=operation.keepdim, dtype=torch.int64)
    return _rescale(total.unsqueeze(-1), operation, output_grid).squeeze(-1)


def max_pool(codes: Tensor, operation: MaxPool) -> Tensor:
    """codes: (N, C, *spatial). Returns codes (N, C, *windows)."""
    shape = tuple(codes.shape[1:])
    padded = _pad(codes, operation.full_padding(shape), torch.iinfo(codes.dtype).min)
    inside = tuple(slice(count) for count in operation.output_shape(shape)[1:])
    positions = _window_positions(padded, operation.kernel_size, operation.stride, operation.dilation)
    return functools.reduce(torch.maximum, [position[(..., *inside)] for position in positions])


def pad(codes: Tensor, amounts: tuple[tuple[int, int], ...], zero_point: int) -> Tensor:
    """codes: (N, ...). amounts: (before, after) per dimension after the batch."""
    return _pad(codes, amounts, zero_point)


def _rescale(accumulators: Tensor, operation, grid: Grid) -> Tensor:
    """Requantize (..., channels), a cacheful at a time."""
    multiplier: Multiplier = operation.multiplier
    rows = accumulators.reshape(-1, accumulators.shape[-1])
    pieces = rows.split(max(1, _RESCALE_CHUNK // rows.shape[1]))
    codes = [requantize(piece, multiplier, grid, operation.clamp_min, operation.clamp_max) for piece in pieces]
    return torch.cat(codes).reshape(accumulators.shape)


def _convolve_dense(codes: Tensor, operation: Conv, grid: Grid) -> Tensor:
    """Accumulators (N, *windows, O), as a matrix product of windows with the kernel."""
    kernel = operation.weight.kernel
    padded = _pad(codes, operation.padding, grid.zero_point).movedim(1, -1).contiguous()
    spatial_strides = padded.stride()[1:-1]
    room = [
        size - spread * (extent - 1) - 1
        for size, extent, spread in zip(padded.shape[1:-1], operation.kernel_size, operation.dilation, strict=True)
    ]
    windows = [space // step + 1 for space, step in zip(room, operation.stride, strict=True)]
    # (N, *windows, *kernel, C): channels innermost, so that whole runs of bytes are copied.
    view = padded.as_strided(
        (len(codes), *windows, *operation.kernel_size, padded.shape[-1]),
        (
            padded.stride(0),
            *(stride * step for stride, step in zip(spatial_strides, operation.stride, strict=True)),
            *(stride * spread for stride, spread in zip(spatial_strides, operation.dilation, strict=True)),
            1,
        ),
    )
    matrix = view.reshape(-1, kernel[0].numel())
    accumulators = _matmul(matrix, kernel.movedim(1, -1).flatten(1), grid) + operation.bias
    return accumulators.reshape(len(codes), *windows, len(kernel))


def _convolve_grouped(codes: Tensor, operation: Conv, grid: Grid) -> Tensor:
    """Accumulators (N, *windows, O), one multiply-add per kernel position and channel of a group."""
    kernel, groups = operation.weight.kernel, operation.groups
    outputs, inputs = len(kernel) // groups, kernel.shape[1]
    padded = _pad(_centered(codes, grid), operation.padding, 0)
    weights = kernel.to(padded.dtype).reshape(groups, outputs, inputs, -1)
    total = None
    positions = _window_positions(padded, operation.kernel_size, operation.stride, operation.dilation)
    for place, position in enumerate(positions):
        grouped = position.unflatten(1, (groups, inputs))  # (N, groups, inputs, *windows)
        spread = (1, groups, outputs, *[1] * len(operation.kernel_size))
        for channel in range(inputs):
            term = grouped[:, :, channel, None] * weights[:, :, channel, place].reshape(spread)
            total = term if total is None else total.add_(term)
    return total.flatten(1, 2).movedim(1, -1) + operation.bias


def _matmul(codes: Tensor, kernel: Tensor, grid: Grid) -> Tensor:
    """sum over k of (codes - zero_point)[m, k] * kernel[o, k]; integers (M, O). kernel: int8 (O, K)."""
    if grid.bits > 8 or not _int8_matmul_is_exact():
        return _centered(codes, grid) @ kernel.T.to(_accumulator_dtype(grid))
    shift = 0
    if codes.dtype == torch.uint8:
        # u8 - 128 as s8 is a flipped top bit; what that takes away comes back through the zero point.
        codes, shift = (codes ^ 128).view(torch.int8), 128
    correction = kernel.sum(1, dtype=torch.int32) * (shift - grid.zero_point)
    return torch._int_mm(_row_major(codes), _row_major(kernel.T)).add_(correction)


def _row_major(matrix: Tensor) -> Tensor:
    """`matrix` with the strides of its shape. A single row or column counts as contiguous with any stride, but the
    product reads the stride: a column that was transposed gave wrong sums (torch 2.13)."""
    if matrix.stride() == (matrix.shape[1], 1):
        return matrix
    return matrix.clone(memory_format=torch.contiguous_format)


@functools.cache
def _int8_matmul_is_exact() -> bool:
    """Whether this processor's int8 matrix product never saturates; those that add pairs in 16 bits do."""
    size = 64
    worst = torch.full((size, size), -128, dtype=torch.int8)
    mixed = torch.arange(-128, 128, dtype=torch.int16).repeat(size * size // 256).to(torch.int8).reshape(size, size)
    pairs = ((worst, worst), (worst, mixed), (mixed, worst), (mixed, mixed.T.contiguous()), (worst, -worst - 1))
    return all(torch.equal(torch._int_mm(a, b), (a.to(torch.int32) @ b.to(torch.int32))) for a, b in pairs)


def _accumulator_dtype(grid: Grid) -> torch.dtype:
    return torch.int32 if grid.bits <= 8 else torch.int64


def _centered(codes: Tensor, grid: Grid) -> Tensor:
    """codes - zero_point, so that real zero is 0."""
    return codes.to(_accumulator_dtype(grid)) - grid.zero_point


def _pad(codes: Tensor, padding, value: int) -> Tensor:
    """padding: (before, after) for each of the last dimensions."""
    if not any(itertools.chain(*padding)):
        return codes
    flat = [amount for pair in reversed(padding) for amount in pair]
    return torch.nn.functional.pad(codes, flat, value=value)


def _window_positions(padded: Tensor, kernel_size, stride, dilation) -> Iterator[Tensor]:
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
