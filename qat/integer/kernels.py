"""Integer kernels: sums of products, pooling and moving of codes, on integer tensors alone.

Codes are (N, ...) tensors of their grid's dtype. 8-bit products run as int8 x int8 -> int32 matrix products; wider
codes take the same way in int64, exact and slower.
"""

import functools
import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

from qat.integer.fixed_point import requantize
from qat.integer.operations import AveragePool, Conv, Linear, MaxPool, Mean
from qat.integer.rescale import rescale
from qat.integer.values import Grid

#: Channels per group from which a matrix product per group is faster than a multiply-add per channel.
_DENSE_CHANNELS = 4
#: Channels from which windows are copied channel by channel instead of pixel by pixel.
_CHANNELS_FIRST_BELOW = 24


def convolve(codes: Tensor, operation: Conv, input_grid: Grid, output_grid: Grid) -> Tensor:
    """codes: (N, C, *spatial). Returns codes (N, O, *windows)."""
    kernel, groups = operation.weight.kernel, operation.groups
    if groups > 1 and kernel.shape[1] < _DENSE_CHANNELS:
        sums = _multiply_add(codes, kernel, operation, input_grid)
    else:
        parts = zip(codes.chunk(groups, 1), kernel.chunk(groups), strict=True)
        pieces = [_convolve_dense(*part, operation, input_grid) for part in parts]
        sums = pieces[0] if groups == 1 else torch.cat(pieces)
    return rescale(sums, operation, output_grid, requantize, operation.bias).transpose(0, 1).contiguous()


def linear(codes: Tensor, operation: Linear, input_grid: Grid, output_grid: Grid) -> Tensor:
    """codes: (N, ..., K). Returns codes (N, ..., O)."""
    kernel = operation.weight.kernel
    sums = _matmul(kernel, _narrow(codes, input_grid).flatten(0, -2).T, input_grid)
    return rescale(sums, operation, output_grid, requantize, operation.bias).T.reshape(*codes.shape[:-1], len(kernel))


def average_pool(codes: Tensor, operation: AveragePool, input_grid: Grid, output_grid: Grid) -> Tensor:
    """codes: (N, C, *spatial). Returns codes (N, C, *windows)."""
    padded = _pad(_centered(codes, input_grid), operation.padding, 0)
    ones = (1,) * len(operation.kernel_size)
    total = functools.reduce(Tensor.add, _window_positions(padded, operation.kernel_size, operation.stride, ones))
    return rescale(total[None], operation, output_grid, requantize)[0]


def mean(codes: Tensor, operation: Mean, input_grid: Grid, output_grid: Grid) -> Tensor:
    """codes: (N, ...). Returns codes with `operation.dims` reduced."""
    total = _centered(codes, input_grid).sum(operation.dims, keepdim=operation.keepdim, dtype=torch.int64)
    return rescale(total[None], operation, output_grid, requantize)[0]


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


def _convolve_dense(codes: Tensor, kernel: Tensor, operation: Conv, grid: Grid) -> Tensor:
    """Sums (O, N, *windows), as a matrix product of the kernel with windows. codes: (N, C, *spatial), of one group."""
    zero = int(_narrow(torch.tensor(grid.zero_point, dtype=grid.dtype), grid))
    padded = _pad(_narrow(codes, grid), operation.padding, zero)
    few = codes.shape[1] < _CHANNELS_FIRST_BELOW
    if not few:
        padded = padded.movedim(1, -1).contiguous().movedim(-1, 1)
    per_sample, per_channel, *per_place = padded.stride()
    room = [
        size - spread * (extent - 1) - 1
        for size, extent, spread in zip(padded.shape[2:], operation.kernel_size, operation.dilation, strict=True)
    ]
    windows = [space // step + 1 for space, step in zip(room, operation.stride, strict=True)]
    view = padded.as_strided(
        (len(codes), *windows, *operation.kernel_size, codes.shape[1]),
        (
            per_sample,
            *(stride * step for stride, step in zip(per_place, operation.stride, strict=True)),
            *(stride * spread for stride, spread in zip(per_place, operation.dilation, strict=True)),
            per_channel,
        ),
    )
    # What is innermost in memory stays so, that whole runs of bytes are copied: rows of pixels, or of channels.
    size, outer = kernel[0].numel(), 1 + len(windows)
    turned = (*range(outer, view.dim()), *range(outer))
    matrix = view.permute(turned).reshape(size, -1) if few else view.reshape(-1, size).T
    sums = _matmul(kernel.movedim(1, -1).flatten(1), matrix, grid)
    return sums.reshape(len(kernel), len(codes), *windows)


def _multiply_add(codes: Tensor, kernel: Tensor, operation: Conv, grid: Grid) -> Tensor:
    """Sums (O, N, *windows), one multiply-add per kernel position and channel of a group."""
    groups, inputs = operation.groups, kernel.shape[1]
    padded = _pad(_centered(codes, grid), operation.padding, 0).transpose(0, 1).contiguous()
    weights = kernel.to(padded.dtype).reshape(groups, len(kernel) // groups, inputs, -1)
    total = None
    positions = _window_positions(padded, operation.kernel_size, operation.stride, operation.dilation)
    for place, position in enumerate(positions):
        grouped = position.unflatten(0, (groups, 1, inputs))  # (groups, 1, inputs, N, *windows)
        for channel in range(inputs):
            factors = weights[:, :, channel, place].reshape(*weights.shape[:2], *[1] * (position.dim() - 1))
            term = grouped[:, :, channel] * factors
            total = term if total is None else total.add_(term)
    return total.flatten(0, 1)


def _narrow(codes: Tensor, grid: Grid) -> Tensor:
    """Codes as an int8 matrix product takes them: u8 - 128 as s8 is a flipped top bit. Wide codes as they are."""
    return (codes ^ 128).view(torch.int8) if grid.dtype == torch.uint8 else codes


def _matmul(kernel: Tensor, codes: Tensor, grid: Grid) -> Tensor:
    """sum over k of kernel[o, k] * (codes - zero_point)[k, m]; integers (O, M). kernel: int8. codes: `_narrow` ones."""
    offset = 128 if grid.dtype == torch.uint8 else 0
    if codes.dtype != torch.int8 or not _int8_matmul_is_exact():
        wide = _accumulator_dtype(grid)
        return kernel.to(wide) @ (codes.to(wide) + (offset - grid.zero_point))
    correction = kernel.sum(1, dtype=torch.int32) * (offset - grid.zero_point)
    return torch._int_mm(_definite(kernel), _definite(codes)).add_(correction[:, None])


def _definite(matrix: Tensor) -> Tensor:
    """`matrix`, or its transpose, with the strides of its shape. A single row or column counts as contiguous with any
    stride, but the product reads the stride: a column that was transposed gave wrong sums (torch 2.13)."""
    if 1 not in matrix.shape and matrix.stride() in ((matrix.shape[1], 1), (1, matrix.shape[0])):
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
