"""How far accumulators reach: for any input, and for inputs that were seen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qat.integer.interpreter import lengths_of, quantize_inputs, run
from qat.integer.kernels.matrices import matrix_sums
from qat.integer.operations import AveragePool, ComputingOperation, Conv, Linear, MatMul, Mean, Mul, Operation, Sum
from qat.integer.program import IntegerProgram
from qat.integer.values import AnyGrid

_CONVOLUTIONS = {1: torch.nn.functional.conv1d, 2: torch.nn.functional.conv2d, 3: torch.nn.functional.conv3d}
#: Bits of the accumulators of all runtimes, and of those for sums of products of 16-bit codes, where one has them.
ACCUMULATOR_BITS, WIDE_ACCUMULATOR_BITS = 32, 64


@dataclass(frozen=True)
class Reach:
    """Bits, with the sign, that the largest accumulator of one operation takes.

    worst_case: for any input. data: for the samples that were run; None where there were none, or the operation is a
    step of a loop.
    """

    name: str
    kind: str
    worst_case: int
    data: int | None = None


def bits_of(magnitude: int) -> int:
    """Bits of a two's complement number that holds plus and minus `magnitude`."""
    return magnitude.bit_length() + 1


def reaches(program: IntegerProgram, largest: Mapping[str, int]) -> tuple[Reach, ...]:
    """Of every operation of `program` that accumulates. largest: magnitudes seen in data, by operation."""
    found = []
    for part in (program, *program.bodies):
        for operation in part.operations:
            if not isinstance(operation, ComputingOperation):
                continue
            sources = [part.value(name) for name in operation.inputs]
            worst = operation.reach(sources, part.value(operation.output))
            if worst:
                seen = largest.get(operation.name) if part is program else None
                found.append(
                    Reach(
                        operation.name,
                        type(operation).__name__,
                        bits_of(worst),
                        None if seen is None else bits_of(seen),
                    )
                )
    return tuple(found)


def largest_seen(program: IntegerProgram, tensors: Mapping[str, Tensor], samples: int) -> dict[str, int]:
    """The largest magnitude in each operation's accumulators, on the first `samples` of inputs by name."""
    program = program.at(**lengths_of(program, tensors))
    codes = run(program, quantize_inputs(program, {name: tensor[:samples] for name, tensor in tensors.items()}))
    codes |= {constant.name: constant.codes[None] for constant in program.constants}
    largest = {}
    for operation in program.operations:
        sums = _sums(
            operation,
            [codes[name] for name in operation.inputs],
            [program.value(name).grid for name in operation.inputs],
        )
        if sums is not None:
            largest[operation.name] = int(sums.abs().max())
    return largest


def _sums(operation: Operation, operands: Sequence[Tensor], grids: Sequence[AnyGrid]) -> Tensor | None:
    """The accumulators of an operation, whole numbers; None where it has none.

    In float64, which holds every whole number below 2^53; accumulators stay below 2^37.
    """
    match operation:
        case Conv():
            convolve = _CONVOLUTIONS[len(operation.kernel_size)]
            flat = [amount for pair in reversed(operation.padding) for amount in pair]
            padded = torch.nn.functional.pad(_reals(operands[0], grids[0]), flat)
            kernel, bias = operation.weight.kernel.double(), operation.bias.double()
            return convolve(
                padded, kernel, bias, operation.stride, dilation=operation.dilation, groups=operation.groups
            )
        case Linear():
            return _reals(operands[0], grids[0]) @ operation.weight.kernel.double().T + operation.bias.double()
        case MatMul():
            return matrix_sums(operands, grids)
        case Mul():
            return _reals(operands[0], grids[0]) * _reals(operands[1], grids[1])
        case Mean() | Sum():
            return _reals(operands[0], grids[0]).sum(operation.dims)
        case AveragePool():
            ones = torch.ones(operands[0].shape[1], 1, *operation.kernel_size, dtype=torch.float64)
            flat = [amount for pair in reversed(operation.padding) for amount in pair]
            padded = torch.nn.functional.pad(_reals(operands[0], grids[0]), flat)
            convolve = _CONVOLUTIONS[len(operation.kernel_size)]
            return convolve(padded, ones, None, operation.stride, groups=len(ones))
    return None


def _reals(codes: Tensor, grid: AnyGrid) -> Tensor:
    return (codes.to(torch.int64) - grid.zero_point).double()
