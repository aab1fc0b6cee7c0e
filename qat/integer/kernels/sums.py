"""Sums of products with constant weights, and sums over windows and dimensions.

Codes are (N, ...) tensors of their grid's dtype. 8-bit products run as int8 x int8 -> int32 matrix products; wider
codes take the same way in int64, exact and slower.
"""

import functools

import torch
from torch import Tensor

from qat.integer.fixed_point import requantize
from qat.integer.kernels.common import centered, pad, window_positions
from qat.integer.kernels.matrices import int8_product, narrow, narrow_offset, whole_product
from qat.integer.operations import AveragePool, Conv, Linear, Mean, Sum
from qat.integer.rescale import Added, rescale
from qat.integer.values import Grid
from qat.tracing import is_traced

#: Channels per group from which a matrix product per group is faster than a multiply-add per channel.
_DENSE_CHANNELS = 4
#: Channels from which windows are copied channel by channel instead of pixel by pixel.
_CHANNELS_FIRST_BELOW = 24


def convolve(operation: Conv, codes: Tensor, input_grid: Grid, output_grid: Grid) -> Tensor:
    """codes: (N, C, *spatial). Returns codes (N, O, *windows)."""
    kernel, groups = operation.weight.kernel.to(codes.device), operation.groups
    if groups > 1 and kernel.shape[1] < _DENSE_CHANNELS:
        sums, added = _multiply_add(codes, kernel, operation, input_grid), [(operation.bias.to(codes.device), 1)]
    else:
        sums, added = (
            _convolve_groups(codes, kernel, operation, input_grid),
            _added(operation, input_grid, codes.device),
        )
    return rescale(sums, operation, output_grid, requantize, *added).transpose(0, 1).contiguous()


def linear(operation: Linear, codes: Tensor, input_grid: Grid, output_grid: Grid) -> Tensor:
    """codes: (N, ..., K). Returns codes (N, ..., O)."""
    kernel = operation.weight.kernel.to(codes.device)
    sums = _matmul(kernel, narrow(codes, input_grid).flatten(0, -2).T, input_grid)
    added = _added(operation, input_grid, codes.device)
    return rescale(sums, operation, output_grid, requantize, *added).T.reshape(*codes.shape[:-1], len(kernel))


def average_pool(operation: AveragePool, codes: Tensor, input_grid: Grid, output_grid: Grid) -> Tensor:
    """codes: (N, C, *spatial). Returns codes (N, C, *windows)."""
    padded = pad(centered(codes, input_grid), operation.padding, 0)
    ones = (1,) * len(operation.kernel_size)
    total = functools.reduce(Tensor.add, window_positions(padded, operation.kernel_size, operation.stride, ones))
    return rescale(total[None], operation, output_grid, requantize)[0]


def reduce(operation: Mean | Sum, codes: Tensor, input_grid: Grid, output_grid: Grid) -> Tensor:
    """codes: (N, ...). Returns codes with `operation.dims` reduced."""
    total = centered(codes, input_grid).sum(operation.dims, keepdim=operation.keepdim, dtype=torch.int64)
    return rescale(total[None], operation, output_grid, requantize)[0]


def _convolve_groups(codes: Tensor, kernel: Tensor, operation: Conv, grid: Grid) -> Tensor:
    """`_matmul` of windows, (O, N, *windows). codes: (N, C, *spatial)."""
    groups = operation.groups
    if groups == 1:
        return _convolve_dense(codes, kernel, operation, grid)
    parts = zip(codes.chunk(groups, 1), kernel.chunk(groups), strict=True)
    return torch.cat([_convolve_dense(*part, operation, grid) for part in parts])


def _convolve_dense(codes: Tensor, kernel: Tensor, operation: Conv, grid: Grid) -> Tensor:
    """`_matmul` of the kernel with windows, (O, N, *windows). codes: (N, C, *spatial), of one group."""
    padded = pad(narrow(codes, grid), operation.padding, -narrow_offset(grid))
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
        (codes.shape[0], *windows, *operation.kernel_size, codes.shape[1]),
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
    return sums.reshape(len(kernel), codes.shape[0], *windows)


def _multiply_add(codes: Tensor, kernel: Tensor, operation: Conv, grid: Grid) -> Tensor:
    """Sums (O, N, *windows), one multiply-add per kernel position and channel of a group."""
    groups, inputs = operation.groups, kernel.shape[1]
    padded = pad(centered(codes, grid), operation.padding, 0).transpose(0, 1).contiguous()
    weights = kernel.to(padded.dtype).reshape(groups, len(kernel) // groups, inputs, -1)
    total = None
    positions = window_positions(padded, operation.kernel_size, operation.stride, operation.dilation)
    for place, position in enumerate(positions):
        grouped = position.unflatten(0, (groups, 1, inputs))  # (groups, 1, inputs, N, *windows)
        for channel in range(inputs):
            factors = weights[:, :, channel, place].reshape(*weights.shape[:2], *[1] * (position.dim() - 1))
            own = grouped[:, :, channel]
            if total is None:
                total = own * factors
            else:  # compiled code would compute torch.addcmul of integers in float32 (torch 2.13)
                total = total + own * factors if is_traced() else total.addcmul_(own, factors)
    return total.flatten(0, 1)


def _matmul(kernel: Tensor, codes: Tensor, grid: Grid) -> Tensor:
    """sum over k of kernel[o, k] * codes[k, m], of wide codes less their zero point; integers (O, M).

    kernel: int8 (O, K). codes: `narrow` ones (K, M). The sums of int8 codes lack what `_added` says.
    """
    if codes.dtype != torch.int8:
        return whole_product(kernel.to(torch.int64), codes.to(torch.int64) - grid.zero_point)
    return int8_product(kernel, codes)


def _added(operation: Conv | Linear, grid: Grid, device: torch.device) -> list[Added]:
    """What is to be added to the sums of `_matmul`: the bias, and the zero point times each channel's weights."""
    bias = operation.bias.to(device), 1
    if grid.bits > 8 or not narrow_offset(grid):
        return [bias]
    return [bias, (operation.weight.kernel_sums.to(device), narrow_offset(grid))]
