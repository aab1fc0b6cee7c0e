"""Softmax and its logarithm, on codes."""

import functools
import math
from collections.abc import Sequence
from decimal import Decimal

import torch
from torch import Tensor

from qat.integer.fixed_point import bit_length
from qat.integer.operations import LogSoftmax, Softmax
from qat.integer.operations.softmax import LOG_BITS, LOG_TABLE_BITS
from qat.integer.values import Grid


def softmax(operation: Softmax, operands: Sequence[Tensor], sources: Sequence[Grid], target: Grid) -> Tensor:
    """operands: codes (N, ...), and where there is one a mask that broadcasts to them. Returns codes (N, ...)."""
    factors = operation.factors
    parts = exponentials(factors.exponentials, operands, sources[0], operation.dim)
    divisors = factors.divisor(row_sums(parts, operation)).clamp_(1, factors.divisor_limit)
    # `SoftmaxFactors` leaves room for a numerator and half a divisor.
    dtype = torch.int32 if factors.divisor_limit < 2**31 else torch.int64
    numerators, divisors = parts.to(dtype) << factors.numerator_shift, divisors.to(dtype)
    steps = torch.div(numerators.add_(divisors >> 1), divisors, rounding_mode="trunc")
    return steps.add_(target.zero_point).clamp_(operation.clamp_min, operation.clamp_max).to(target.dtype)


def distances(operands: Sequence[Tensor], grid: Grid, dim: int) -> Tensor:
    """How far each code lies below the largest of its row that takes part, int32; of masked codes some place of the
    table."""
    codes = operands[0].to(torch.int32)
    if len(operands) == 2:
        codes = torch.where(operands[1].bool(), codes, grid.quant_min)
    return codes.amax(dim, keepdim=True) - codes


def exponentials(table: Tensor, operands: Sequence[Tensor], grid: Grid, dim: int) -> Tensor:
    """Entries of `table` by distance, 0 where masked; int32 (N, ...)."""
    places = distances(operands, grid, dim)
    found = table.to(places.device).index_select(0, places.flatten()).reshape(places.shape)
    return found * operands[1].to(torch.int32) if len(operands) == 2 else found


def row_sums(parts: Tensor, operation: Softmax | LogSoftmax) -> Tensor:
    """Sums of exponentials over the operation's dimension, which stays with size 1; int64."""
    dim = operation.dim
    narrow = int(operation.factors.exponentials[0]) * parts.shape[dim] < 2**31
    return parts.sum(dim, keepdim=True, dtype=torch.int32 if narrow else torch.int64).to(torch.int64)


def log_softmax(operation: LogSoftmax, codes: Tensor, source: Grid, target: Grid) -> Tensor:
    """codes: (N, ...). Returns codes of the same shape."""
    factors, dim = operation.factors, operation.dim
    sums = row_sums(exponentials(factors.exponentials, [codes], source, dim), operation)
    logs = integer_log(sums, int(factors.exponentials[0]).bit_length() - 1, codes.shape[dim].bit_length())
    scaled = (logs * factors.log_factor + ((1 << factors.log_shift) >> 1)) >> factors.log_shift
    steps = distances([codes], source, dim).to(torch.int64).mul_(factors.distance_factor).add_(scaled)
    steps = (steps + ((1 << factors.shift) >> 1)) >> factors.shift
    return (target.zero_point - steps).clamp_(operation.clamp_min, operation.clamp_max).to(target.dtype)


@functools.cache
def log_table() -> Tensor:
    """Natural logarithms of 1 to 2 in 2^LOG_TABLE_BITS steps, of LOG_BITS fractional bits; int64.

    Decimal numbers give the same entries on every machine, whatever its floating-point library.
    """
    steps = (1 + Decimal(place) / 2**LOG_TABLE_BITS for place in range(2**LOG_TABLE_BITS))
    return torch.tensor([round(step.ln() * 2**LOG_BITS) for step in steps])


#: The natural logarithm of 2 with LOG_BITS fractional bits.
LOG_OF_TWO = round(math.log(2) * 2**LOG_BITS)


def integer_log(sums: Tensor, bits: int, digits: int) -> Tensor:
    """Natural logarithm of sums / 2^bits with LOG_BITS fractional bits, within 2. sums: int64 in 2^bits..2^(bits +
    digits), at most 2^42.
    """
    # sums = 2^(bits + exponent) * (1 + place / 2^LOG_TABLE_BITS + ...)
    exponent = bit_length(sums) - 1 - bits
    raised = sums << (digits - exponent)
    step = 1 << (bits + digits - LOG_TABLE_BITS)
    places = raised // step
    rest = ((raised - places * step) << LOG_BITS) // (places * step)
    table = log_table().to(sums.device)
    return table[places - 2**LOG_TABLE_BITS] + exponent * LOG_OF_TWO + rest - ((rest * rest) >> (LOG_BITS + 1))
