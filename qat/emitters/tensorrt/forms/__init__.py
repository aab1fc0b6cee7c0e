"""Each operation of an integer program as QDQ nodes, one function per kind."""

from collections.abc import Callable

from qat.emitters.tensorrt.forms import elementwise, moves, reals, sums
from qat.emitters.tensorrt.writer import Writer
from qat.integer import operations as ops
from qat.integer.operations import Operation

#: What adds the nodes of each kind of operation; those of `reals.KINDS` compute in real numbers.
FORMS: dict[type[Operation], Callable[[Writer, Operation], None]] = {
    ops.Conv: sums.convolution,
    ops.Linear: sums.linear,
    ops.MatMul: sums.matmul,
    ops.AveragePool: sums.average_pool,
    ops.Mean: sums.reduce,
    ops.Sum: sums.reduce,
    ops.Add: elementwise.add,
    ops.Mul: elementwise.multiply,
    ops.Requantize: elementwise.requantize,
    ops.Table: elementwise.table,
    **dict.fromkeys(reals.KINDS, reals.write),
    ops.Divide: reals.divide,
    ops.MaxPool: moves.max_pool,
    ops.Max: moves.largest,
    ops.Concatenate: moves.concatenate,
    ops.Reshape: moves.reshape,
    ops.Transpose: moves.transpose,
    ops.Slice: moves.cut,
    ops.Pad: moves.pad,
    ops.Take: moves.take,
    ops.Expand: moves.expand,
    ops.Negate: moves.plain("Neg"),
    ops.Select: moves.select,
    ops.Embedding: moves.embedding,
    ops.ArgMax: moves.arg_max,
    ops.TopKValues: moves.top_k,
    ops.TopKIndices: moves.top_k,
    ops.IndexTable: moves.index_table,
    ops.IndexSum: moves.plain("Add"),
    ops.IndexProduct: moves.plain("Mul"),
    ops.CumulativeSum: moves.cumulate,
    ops.Gather: moves.gather,
}
