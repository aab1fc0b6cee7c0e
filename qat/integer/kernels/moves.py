"""Codes in another place, or chosen among several; nothing is computed with."""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from qat.integer.kernels.common import pad, window_positions
from qat.integer.operations import Concatenate, Expand, Max, MaxPool, Pad, Reshape, Slice, Take, Transpose
from qat.integer.values import Grid


def max_pool(operation: MaxPool, codes: Tensor) -> Tensor:
    """codes: (N, C, *spatial). Returns codes (N, C, *windows)."""
    shape = tuple(codes.shape[1:])
    padded = pad(codes, operation.full_padding(shape), torch.iinfo(codes.dtype).min)
    inside = tuple(slice(count) for count in operation.output_shape(shape)[1:])
    positions = window_positions(padded, operation.kernel_size, operation.stride, operation.dilation)
    return functools.reduce(torch.maximum, [position[(..., *inside)] for position in positions])


def largest(operation: Max, codes: Tensor) -> Tensor:
    """Largest code over dimensions."""
    return codes.amax(operation.dims, keepdim=operation.keepdim)


def concatenate(operation: Concatenate, operands: Sequence[Tensor]) -> Tensor:
    """Operands one after another; constants, of batch 1, are repeated."""
    batch = max(codes.shape[0] for codes in operands)
    return torch.cat([codes.expand(batch, *codes.shape[1:]) for codes in operands], operation.dim)


def reshape(operation: Reshape, codes: Tensor) -> Tensor:
    """The same codes in another shape."""
    return codes.reshape(codes.shape[0], *operation.shape)


def transpose(operation: Transpose, codes: Tensor) -> Tensor:
    """Dimensions in another order."""
    return codes.permute(operation.permutation).contiguous()


def cut(operation: Slice, codes: Tensor) -> Tensor:
    """A cut along every dimension after the batch."""
    cuts = tuple(map(slice, operation.starts, operation.ends, operation.steps))
    return codes[(slice(None), *cuts)].contiguous()


def pad_zeros(operation: Pad, codes: Tensor, grid: Grid) -> Tensor:
    """Codes of real zeros around the input."""
    return pad(codes, operation.amounts, grid.zero_point)


def take(operation: Take, codes: Tensor) -> Tensor:
    """Entries of one dimension, in another order or several times."""
    return codes.index_select(operation.dim, operation.indices.to(codes.device))


def expand(operation: Expand, codes: Tensor) -> Tensor:
    """Dimensions of size 1, repeated."""
    return codes.expand(codes.shape[0], *operation.shape).contiguous()
