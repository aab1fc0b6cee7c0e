"""Integer kernels: what each operation makes of the codes of its inputs, on integer tensors alone.

Float islands are the exception: they compute in real numbers, and say so.
The interpreter runs them, and so does the eval forward of a prepared network.
"""

from collections.abc import Callable, Sequence

from torch import Tensor

from qat.integer import operations as ops
from qat.integer.kernels import (
    choices,
    division,
    elementwise,
    indices,
    islands,
    matrices,
    moves,
    normalize,
    softmax,
    sums,
    tables,
)
from qat.integer.operations import Operation
from qat.integer.values import AnyGrid

Kernel = Callable[[Operation, Sequence[Tensor], Sequence[AnyGrid], AnyGrid], Tensor]


def _of_one(kernel: Callable[[Operation, Tensor, AnyGrid, AnyGrid], Tensor]) -> Kernel:
    """A kernel that takes a single operand and its grid."""
    return lambda operation, operands, sources, target: kernel(operation, operands[0], sources[0], target)


def _moving(kernel: Callable[[Operation, Tensor], Tensor]) -> Kernel:
    """A kernel that takes a single operand and no grid."""
    return lambda operation, operands, sources, target: kernel(operation, operands[0])


#: One kernel for each kind of operation.
KERNELS: dict[type[Operation], Kernel] = {
    ops.Conv: _of_one(sums.convolve),
    ops.Linear: _of_one(sums.linear),
    ops.MatMul: matrices.multiply_matrices,
    ops.Add: elementwise.add,
    ops.Mul: elementwise.multiply,
    ops.Requantize: _of_one(elementwise.requantize),
    ops.Table: lambda operation, operands, sources, target: tables.look_up(operation, operands[0], sources[0]),
    ops.Divide: division.divide,
    ops.Softmax: softmax.softmax,
    ops.LogSoftmax: _of_one(softmax.log_softmax),
    ops.Normalize: _of_one(normalize.normalize),
    ops.AveragePool: _of_one(sums.average_pool),
    ops.Mean: _of_one(sums.reduce),
    ops.Sum: _of_one(sums.reduce),
    ops.MaxPool: _moving(moves.max_pool),
    ops.Max: _moving(moves.largest),
    ops.Concatenate: lambda operation, operands, sources, target: moves.concatenate(operation, operands),
    ops.Reshape: _moving(moves.reshape),
    ops.Transpose: _moving(moves.transpose),
    ops.Slice: _moving(moves.cut),
    ops.Pad: lambda operation, operands, sources, target: moves.pad_zeros(operation, operands[0], target),
    ops.Take: _moving(moves.take),
    ops.Expand: _moving(moves.expand),
    ops.Negate: lambda operation, operands, sources, target: choices.negate(operands[0], target),
    ops.Select: lambda operation, operands, sources, target: choices.select(operands),
    ops.Embedding: _moving(tables.embed),
    ops.ArgMax: _moving(choices.arg_max),
    ops.TopKValues: _moving(choices.top_values),
    ops.TopKIndices: _moving(choices.top_indices),
    ops.IndexTable: _moving(indices.look_up),
    ops.IndexSum: lambda operation, operands, sources, target: indices.add(operands),
    ops.IndexProduct: lambda operation, operands, sources, target: indices.multiply(operands),
    ops.CumulativeSum: _moving(indices.cumulate),
    ops.FloatIsland: islands.float_island,
    ops.Gather: lambda operation, operands, sources, target: indices.gather(operation, operands),
}


def compute(operation: Operation, operands: Sequence[Tensor], sources: Sequence[AnyGrid], target: AnyGrid) -> Tensor:
    """Codes that one operation makes.

    operands: (N, ...) codes of `sources`, their grids; constants have a batch of 1. target: grid of the result.
    """
    return KERNELS[type(operation)](operation, operands, sources, target)
