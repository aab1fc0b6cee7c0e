"""Each operation of an integer program in C, one function per kind, beside the kernels that it calls."""

from collections.abc import Callable

from qat.emitters.c.forms import (
    choices,
    division,
    elementwise,
    indices,
    loops,
    moves,
    normalize,
    products,
    reductions,
    softmax,
    tables,
    weighted,
    windows,
)
from qat.emitters.c.writer import Writer
from qat.integer import operations as ops
from qat.integer.operations import Operation

#: What adds the calls of each kind of operation.
FORMS: dict[type[Operation], Callable[[Writer, Operation], None]] = {
    ops.Conv: weighted.convolution,
    ops.Linear: weighted.linear,
    ops.MatMul: products.matmul,
    ops.Add: elementwise.add,
    ops.Mul: elementwise.multiply,
    ops.Requantize: elementwise.requantize,
    ops.Table: tables.table,
    ops.Divide: division.divide,
    ops.Softmax: softmax.softmax,
    ops.LogSoftmax: softmax.log_softmax,
    ops.Normalize: normalize.normalize,
    ops.AveragePool: windows.average_pool,
    ops.Mean: reductions.reduce,
    ops.Sum: reductions.reduce,
    ops.MaxPool: windows.max_pool,
    ops.Max: reductions.largest,
    ops.Concatenate: moves.concatenate,
    ops.Reshape: moves.reshape,
    ops.Transpose: moves.transpose,
    ops.Slice: moves.cut,
    ops.Pad: moves.pad,
    ops.Take: moves.take,
    ops.Expand: moves.expand,
    ops.Negate: choices.negate,
    ops.Select: choices.select,
    ops.Embedding: tables.embedding,
    ops.ArgMax: choices.arg_max,
    ops.TopKValues: choices.top_values,
    ops.TopKIndices: choices.top_indices,
    ops.IndexTable: indices.table,
    ops.IndexSum: indices.add,
    ops.IndexProduct: indices.multiply,
    ops.CumulativeSum: indices.cumulate,
    ops.Gather: indices.gather,
    ops.Loop: loops.loop,
}
