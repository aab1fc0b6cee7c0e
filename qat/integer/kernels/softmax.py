"""Softmax and its logarithm, on codes."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from qat.integer.fixed_point import bit_length
from qat.integer.operations import LogSoftmax, Softmax
from qat.integer.operations.softmax import LOG_BITS, LOG_SUM_LIMIT, LOG_TABLE_BITS, log_table
from qat.integer.values import Grid


def softmax(operation: Softmax, operands: Sequence[Tensor], sources: Sequence[Grid], target: Grid) -> Tensor:
    """operands: codes (N, ...), and where there is one a mask that broadcasts to them. Returns codes (N, ...)."""
    factors = operation.factors
    parts = exponentials(factors.exponentials, operands, sources[0], operation.dim)
    divisors = factors.divisor(row_sums(parts, operation)).clamp_(1, factors.divisor_limit)
    # `SoftmaxFactors` leaves room for a numerator and half a divisor.
    dtype = torch.int32 if factors.divisor_limit < 2**31 else torch.int64
    numerators, divisors = parts.to(dtype).bitwise_left_shift_(factors.numerator_shift), divisors.to(dtype)
    steps = numerators.add_(divisors >> 1).div_(divisors, rounding_mode="trunc")
    return steps.add_(target.zero_point).clamp_(operation.clamp_min, operation.clamp_max).to(target.dtype)


def distances(operands: Sequence[Tensor], grid: Grid, dim: int) -> Tensor:
    """How far each code lies below the largest of its row that takes part, int32; of masked codes some place of the
    table."""
    # What counts from 0 is masked by a product. 8 bits are read faster than 32, and wrap around to what counts from 0.
    if grid.bits <= 8:
        counted = operands[0].view(torch.uint8)
        counted = counted + -grid.quant_min % 256 if grid.quant_min else counted
    else:
        counted = operands[0].to(torch.int32) - grid.quant_min
    if len(operands) == 2:
        counted = counted * operands[1]
    return (counted.amax(dim, keepdim=True) - counted).to(torch.int32)


def exponentials(table: Tensor, operands: Sequence[Tensor], grid: Grid, dim: int) -> Tensor:
    """Entries of `table` by distance, 0 where masked; int32 (N, ...)."""
    places = distances(operands, grid, dim)
    found = table.to(places.device).index_select(0, places.flatten()).reshape(places.shape)
    return found.mul_(operands[1]) if len(operands) == 2 else found


def row_sums(parts: Tensor, operation: Softmax | LogSoftmax) -> Tensor:
    """Sums of exponentials over the operation's dimension, which stays with size 1; int64."""
    dim = operation.dim
    narrow = operation.factors.one * parts.shape[dim] < 2**31
    return parts.sum(dim, keepdim=True, dtype=torch.int32 if narrow else torch.int64).to(torch.int64)


def log_softmax(operation: LogSoftmax, codes: Tensor, source: Grid, target: Grid) -> Tensor:
    """codes: (N, ...). Returns codes of the same shape."""
    factors, dim = operation.factors, operation.dim
    sums = row_sums(exponentials(factors.exponentials, [codes], source, dim), operation)
    bits = factors.one.bit_length() - 1
    logs = integer_log(sums, bits, LOG_SUM_LIMIT - bits, factors.logs)
    scaled = (logs * factors.log_factor + ((1 << factors.log_shift) >> 1)) >> factors.log_shift
    scaled += (1 << factors.shift) >> 1
    # `LogSoftmaxFactors` leaves room for what is shifted.
    dtype = torch.int32 if target.bits <= 8 else torch.int64
    steps = distances([codes], source, dim).to(dtype).mul_(factors.distance_factor).add_(scaled.to(dtype))
    steps = steps.bitwise_right_shift_(factors.shift)
    return (target.zero_point - steps).clamp_(operation.clamp_min, operation.clamp_max).to(target.dtype)


#: The natural logarithm of 2 with LOG_BITS fractional bits.
LOG_OF_TWO = round(math.log(2) * 2**LOG_BITS)


def integer_log(sums: Tensor, bits: int, digits: int, table: Tensor | None = None) -> Tensor:
    """Natural logarithm of sums / 2^bits with LOG_BITS fractional bits, within 2. sums: int64 in 2^bits..2^(bits +
    digits), at most 2^42. table: `log_table()`, which is taken where none is given.
    """
    # sums = 2^(bits + exponent) * (1 + place / 2^LOG_TABLE_BITS + ...)
    exponent = bit_length(sums) - 1 - bits
    raised = sums << (digits - exponent)
    step = 1 << (bits + digits - LOG_TABLE_BITS)
    places = raised // step
    rest = ((raised - places * step) << LOG_BITS) // (places * step)
    table = (log_table() if table is None else table).to(sums.device)
    return table[places - 2**LOG_TABLE_BITS] + exponent * LOG_OF_TWO + rest - ((rest * rest) >> (LOG_BITS + 1))
