"""Each operation of an integer program as ONNX nodes, one function per kind."""

from collections.abc import Callable

from qat.emitters.onnxruntime.forms import (
    choices,
    division,
    elementwise,
    indices,
    moves,
    normalize,
    products,
    softmax,
    sums,
    tables,
)
from qat.emitters.onnxruntime.forms.take import take
from qat.emitters.onnxruntime.writer import Writer
from qat.integer import operations as ops
from qat.integer.operations import Operation

#: What adds the nodes of each kind of operation.
FORMS: dict[type[Operation], Callable[[Writer, Operation], None]] = {
    ops.Conv: sums.convolution,
    ops.Linear: sums.linear,
    ops.MatMul: products.matmul,
    ops.Add: elementwise.add,
    ops.Mul: elementwise.multiply,
    ops.Requantize: elementwise.requantize,
    ops.Table: tables.table,
    ops.Divide: division.divide,
    ops.Softmax: softmax.softmax,
    ops.LogSoftmax: softmax.log_softmax,
    ops.Normalize: normalize.normalize,
    ops.AveragePool: sums.average_pool,
    ops.Mean: sums.reduce,
    ops.Sum: sums.reduce,
    ops.MaxPool: moves.max_pool,
    ops.Max: moves.largest,
    ops.Concatenate: moves.concatenate,
    ops.Reshape: moves.reshape,
    ops.Transpose: moves.transpose,
    ops.Slice: moves.cut,
    ops.Pad: moves.pad,
    ops.Take: take,
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
}
