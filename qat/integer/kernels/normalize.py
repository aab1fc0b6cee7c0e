"""Normalization on codes, with a square root by integers alone."""

import torch
from torch import Tensor

from qat.integer.fixed_point import bit_length
from qat.integer.operations import Normalize
from qat.integer.operations.normalize import is_narrow
from qat.integer.values import Grid

#: Newton steps of a root. The first estimate is off by at most the root of 2, and each step squares what is left:
#: 6 %, 0.2 %, 1.5e-6, 1e-12, less than one in a root of 31 bits.
ROOT_STEPS = 4
#: First estimates of a root by the number of binary digits of a number, halved and rounded up: between 2^(k-1) and 2^k.
ROOT_ESTIMATES = tuple([1] + [round(2 ** (k - 0.5)) for k in range(1, 33)])


def normalize(operation: Normalize, codes: Tensor, source: Grid, target: Grid) -> Tensor:
    """codes: (N, ...). Returns codes of the same shape."""
    factors, dims = operation.factors, operation.dims
    count = operation.row_size(tuple(codes.shape[1:]))
    # What is as large as the value is int32 where everything fits that, which is twice as fast; sums are int64.
    dtype = torch.int32 if is_narrow(source, target, count) else torch.int64
    counted = codes.to(dtype) + source.unsigned_offset
    if operation.centered:
        total = counted.sum(dims, keepdim=True, dtype=dtype)
        mean = torch.div(total, factors.count, rounding_mode="floor")
        rest = (total - mean * factors.count).to(torch.int64)
    else:
        mean, rest = source.zero_point + source.unsigned_offset, 0
    values = counted.sub_(mean)
    squares = values * values
    narrow = count * (source.quant_max - source.quant_min) ** 2 < 2**31
    square = squares.sum(dims, keepdim=True, dtype=dtype if narrow else torch.int64).to(torch.int64)
    square = (factors.count * square - rest * rest) << 2 * factors.root_shift
    root = integer_root(square.clamp(min=factors.epsilon) if operation.l2 else square + factors.epsilon)
    slope = torch.div(torch.full_like(root, factors.count << factors.quotient_shift), root, rounding_mode="floor")
    # A slope beyond int32 is that of a row whose values are all 0.
    normalized = values.mul_(slope.to(dtype))
    if operation.centered:
        normalized -= torch.div(rest << factors.quotient_shift, root, rounding_mode="floor").to(dtype)
    divisors, offsets, bases = (
        tensor.to(codes.device, dtype) for tensor in (factors.divisors, factors.offsets, factors.bases)
    )
    # The offsets make quotients positive, so that cutting off rounds down.
    steps = normalized.add_(offsets).div_(divisors, rounding_mode="trunc").add_(bases + target.zero_point)
    return steps.clamp_(operation.clamp_min, operation.clamp_max).to(target.dtype)


def integer_root(numbers: Tensor) -> Tensor:
    """The square root of int64 `numbers` in 0..2^62, within 1; of 0 it is 1, so that it can be divided by."""
    numbers = numbers.clamp(min=1)
    estimates = torch.tensor(ROOT_ESTIMATES, device=numbers.device)
    root = estimates[(bit_length(numbers) + 1) >> 1]
    for _ in range(ROOT_STEPS):
        root = (root + torch.div(numbers, root, rounding_mode="floor")) >> 1
    return root
