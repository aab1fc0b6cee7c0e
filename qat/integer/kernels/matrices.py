"""Products of matrices of codes, exact on every processor."""

from collections.abc import Sequence

import torch
from torch import Tensor

from qat.integer.fixed_point import requantize, requantize_once
from qat.integer.operations import MatMul
from qat.integer.rescale import rescale
from qat.integer.values import Grid
from qat.tracing import is_traced

#: Multiplications of one matrix product from which the int8 product is faster than plain int32 loops over a batch.
_WORTHWHILE = 2**15


def multiply_matrices(operation: MatMul, operands: Sequence[Tensor], sources: Sequence[Grid], target: Grid) -> Tensor:
    """(N, ..., I, K) @ (N, ..., K, J): codes (N, ..., I, J)."""
    sums = matrix_sums(operands, sources)
    return rescale(sums[None], operation, target, requantize_once if operation.rounds_once else requantize)[0]


def matrix_sums(operands: Sequence[Tensor], sources: Sequence[Grid]) -> Tensor:
    """Sums of products of codes less their zero points: int32, or int64 for wide codes."""
    first, second = operands
    wide = any(grid.bits > 8 for grid in sources)
    # a traced program cannot loop over a batch whose size it does not know
    batched = wide or is_traced() or first.device.type != "cpu"
    if batched or first.shape[-2] * first.shape[-1] * second.shape[-1] < _WORTHWHILE:
        dtype = torch.int64 if wide else torch.int32
        return whole_product(
            *(codes.to(dtype) - grid.zero_point for codes, grid in zip(operands, sources, strict=True))
        )
    first, second = (narrow(codes, grid) for codes, grid in zip(operands, sources, strict=True))
    offsets = [narrow_offset(grid) for grid in sources]
    leading = torch.broadcast_shapes(first.shape[:-2], second.shape[:-2])
    shape = (*leading, first.shape[-2], second.shape[-1])
    left, right = (
        codes.expand(*leading, *codes.shape[-2:]).flatten(0, -3) if leading else codes[None]
        for codes in (first, second)
    )
    sums = torch.stack([int8_product(*pair) for pair in zip(left, right, strict=True)]).reshape(shape)
    # sum (a + u)(b + v) = sum ab + u sum b + v sum a + K u v
    if offsets[0]:
        sums += second.sum(-2, keepdim=True, dtype=torch.int32) * offsets[0]
    if offsets[1]:
        sums += first.sum(-1, keepdim=True, dtype=torch.int32) * offsets[1]
    return sums.add_(first.shape[-1] * offsets[0] * offsets[1])


def narrow(codes: Tensor, grid: Grid) -> Tensor:
    """Codes as an int8 matrix product takes them: u8 - 128 as s8 is a flipped top bit. Wide codes as they are."""
    return (codes ^ 128).view(torch.int8) if grid.dtype == torch.uint8 else codes


def narrow_offset(grid: Grid) -> int:
    """What to add to `narrow` codes so that real zero is 0."""
    return (128 if grid.dtype == torch.uint8 else 0) - grid.zero_point


def int8_product(first: Tensor, second: Tensor) -> Tensor:
    """int32 (O, M) of int8 (O, K) and (K, M)."""
    if first.device.type == "cuda":
        return _padded_product(first, second)
    if first.device.type != "cpu" or not int8_matmul_is_exact():
        return whole_product(first.to(torch.int32), second.to(torch.int32))
    return torch._int_mm(_definite(first), _definite(second))


def whole_product(first: Tensor, second: Tensor) -> Tensor:
    """The product of int32 or int64 tensors, of their dtype.

    Devices other than the processor have no integer product of every shape. There float64 carries the whole numbers:
    up to 2^53 it rounds none, and these stay below 2^31, in whatever order they are added.
    """
    if first.device.type == "cpu":
        return first @ second
    return (first.to(torch.float64) @ second.to(torch.float64)).to(first.dtype)


def _padded_product(first: Tensor, second: Tensor) -> Tensor:
    """`int8_product` on a GPU, whose kernel takes 17 rows or more, and inner sizes and columns that are multiples of 8
    (`_int_mm_out_cuda` in torch's `aten/src/ATen/native/cuda/Blas.cpp`). Zeros fill up and add nothing.

    The product is the transposed one, `second.T @ first.T`, whose rows alone depend on the batch.
    """
    (columns, inner), rows = first.shape, second.shape[1]
    pad = torch.nn.functional.pad
    # a traced number of rows is not known, and 16 more are enough for any
    more = 16 if is_traced() else max(24 - rows, -rows % 8)
    left = pad(second.T, (0, -inner % 8, 0, more)).contiguous()
    right = pad(first, (0, -inner % 8, 0, -columns % 8)).contiguous()
    return torch._int_mm(left, right.T)[:rows, :columns].T


def _definite(matrix: Tensor) -> Tensor:
    """`matrix`, or its transpose, with the strides of its shape. A single row or column counts as contiguous with any
    stride, but the product reads the stride: a column that was transposed gave wrong sums (torch 2.13)."""
    if not is_traced() and 1 not in matrix.shape and matrix.stride() in ((matrix.shape[1], 1), (1, matrix.shape[0])):
        return matrix
    return matrix.clone(memory_format=torch.contiguous_format)


def int8_matmul_is_exact() -> bool:
    """Whether this processor's int8 matrix product never saturates; those that add pairs in 16 bits do.

    Tried once. `torch.compile` cannot try and takes what is known: whoever traces asks before.
    """
    if not _known_exact:
        _known_exact.append(_try_int8_matmul())
    return _known_exact[0]


#: What `int8_matmul_is_exact` has found.
_known_exact: list[bool] = []


def _try_int8_matmul() -> bool:
    size = 64
    worst = torch.full((size, size), -128, dtype=torch.int8)
    mixed = torch.arange(-128, 128, dtype=torch.int16).repeat(size * size // 256).to(torch.int8).reshape(size, size)
    pairs = ((worst, worst), (worst, mixed), (mixed, worst), (mixed, mixed.T.contiguous()), (worst, -worst - 1))
    return all(torch.equal(torch._int_mm(a, b), (a.to(torch.int32) @ b.to(torch.int32))) for a, b in pairs)
