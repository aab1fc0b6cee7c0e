"""Products of int8 matrices, exact in int32 on every processor."""

import functools

import torch
from torch import Tensor


def int8_product(first: Tensor, second: Tensor) -> Tensor:
    """int32 (O, M) of int8 (O, K) and (K, M)."""
    if first.device.type != "cpu" or not _int8_matmul_is_exact():
        return first.to(torch.int32) @ second.to(torch.int32)
    return torch._int_mm(_definite(first), _definite(second))


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
