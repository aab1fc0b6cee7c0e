"""Each operation of an integer program as operators of TensorFlow Lite, one function per kind."""

from collections.abc import Callable

from qat.emitters.litert.forms import (
    choices,
    division,
    elementwise,
    moves,
    normalize,
    products,
    softmax,
    sums,
    tables,
    windows,
)
from qat.emitters.litert.writer import Writer
from qat.integer import operations as ops
from qat.integer.operations import Operation

#: What adds the operators of each kind of operation; `qat.emitters.litert.refusals` names what is not here.
FORMS: dict[type[Operation], Callable[[Writer, Operation], None]] = {
    ops.Conv: sums.convolution,
    ops.Linear: sums.linear,
    ops.MatMul: products.matmul,
    ops.Add: elementwise.add,
    ops.Mul: elementwise.multiply,
    ops.Requantize: elementwise.requantize,
    ops.Negate: elementwise.negate,
    ops.Table: tables.table,
    ops.Softmax: softmax.softmax,
    ops.LogSoftmax: softmax.log_softmax,
    ops.Divide: division.divide,
    ops.Normalize: normalize.normalize,
    ops.Embedding: tables.embedding,
    ops.AveragePool: sums.average_pool,
    ops.Mean: sums.reduce,
    ops.Sum: sums.reduce,
    ops.MaxPool: windows.max_pool,
    ops.Max: moves.largest,
    ops.ArgMax: choices.arg_max,
    ops.Concatenate: moves.concatenate,
    ops.Reshape: moves.reshape,
    ops.Transpose: moves.transpose,
    ops.Slice: moves.cut,
    ops.Pad: moves.pad,
    ops.Take: moves.take,
    ops.Expand: moves.expand,
    ops.Select: choices.select,
}
