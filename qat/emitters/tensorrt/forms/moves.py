"""Codes in another place, chosen among several, or chosen by indices: on their units, which stay whole numbers."""

import numpy
from onnx import TensorProto

from qat.emitters.onnxruntime.graph import array_of, pads_of
from qat.emitters.tensorrt.writer import Writer, codes_of
from qat.integer import operations as ops
from qat.integer.operations import Operation
from qat.integer.values import INT8_MIN

#: What moves indices is int64, everything else float32.
_DTYPES = {True: numpy.int64, False: numpy.float32}


def plain(kind: str):
    """The form of an operation that is one node without settings."""

    def write(writer: Writer, operation: Operation) -> None:
        writer.moved(operation.output, kind, [writer.operand(name) for name in operation.inputs])

    return write


def _constant(writer: Writer, operation: Operation, key: str, array, dtype=numpy.int64) -> str:
    return writer.graph.constant(f"{operation.name}/{key}", array, dtype)


def max_pool(writer: Writer, operation: ops.MaxPool) -> None:
    """MaxPool, with the overhang of ceil_mode written out as padding."""
    source, padding = writer.operand(operation.inputs[0]), operation.full_padding(writer.shape(operation.inputs[0]))
    if any(max(pair) >= size for pair, size in zip(padding, operation.kernel_size, strict=True)):
        # A node pads by less than a window; further out stands the code that never wins.
        amounts = _constant(writer, operation, "amounts", pads_of(((0, 0), (0, 0), *padding)))
        lowest = _constant(writer, operation, "lowest", INT8_MIN, numpy.float32)
        source = writer.graph.node("Pad", [source, amounts, lowest], f"{operation.name}/padded")
        padding = ((0, 0),) * len(padding)
    settings = {"kernel_shape": operation.kernel_size, "strides": operation.stride, "pads": pads_of(padding)}
    writer.moved(operation.output, "MaxPool", [source], **settings)


def largest(writer: Writer, operation: ops.Max) -> None:
    """ReduceMax."""
    sources = [writer.operand(operation.inputs[0]), _constant(writer, operation, "axes", operation.dims)]
    writer.moved(operation.output, "ReduceMax", sources, keepdims=int(operation.keepdim))


def concatenate(writer: Writer, operation: ops.Concatenate) -> None:
    """Concat; constants are repeated for as many samples as a value has."""
    value = next(writer.operand(name) for name in operation.inputs if not writer.is_constant(name))
    sources = [
        writer.graph.repeat(writer.operand(name), writer.shape(name), value, f"{operation.name}/{place}")
        if writer.is_constant(name)
        else writer.operand(name)
        for place, name in enumerate(operation.inputs)
    ]
    writer.moved(operation.output, "Concat", sources, axis=operation.dim)


def reshape(writer: Writer, operation: ops.Reshape) -> None:
    """Reshape, which keeps the batch."""
    shape = _constant(writer, operation, "shape", (0, *operation.shape))
    writer.moved(operation.output, "Reshape", [writer.operand(operation.inputs[0]), shape])


def transpose(writer: Writer, operation: ops.Transpose) -> None:
    """Transpose."""
    sources = [writer.operand(operation.inputs[0])]
    writer.moved(operation.output, "Transpose", sources, perm=operation.permutation)


def cut(writer: Writer, operation: ops.Slice) -> None:
    """Slice."""
    axes = range(1, len(operation.starts) + 1)
    cuts = {"starts": operation.starts, "ends": operation.ends, "axes": axes, "steps": operation.steps}
    names = [_constant(writer, operation, key, list(numbers)) for key, numbers in cuts.items()]
    writer.moved(operation.output, "Slice", [writer.operand(operation.inputs[0]), *names])


def pad(writer: Writer, operation: ops.Pad) -> None:
    """Pad with zeros."""
    amounts = _constant(writer, operation, "amounts", pads_of(((0, 0), *operation.amounts)))
    zero = _constant(writer, operation, "zero", 0, _DTYPES[writer.holds_indices(operation.inputs[0])])
    writer.moved(operation.output, "Pad", [writer.operand(operation.inputs[0]), amounts, zero])


def take(writer: Writer, operation: ops.Take) -> None:
    """Gather."""
    indices = _constant(writer, operation, "indices", array_of(operation.indices))
    writer.moved(operation.output, "Gather", [writer.operand(operation.inputs[0]), indices], axis=operation.dim)


def expand(writer: Writer, operation: ops.Expand) -> None:
    """Expand, where a 1 keeps the batch."""
    shape = _constant(writer, operation, "shape", (1, *operation.shape))
    writer.moved(operation.output, "Expand", [writer.operand(operation.inputs[0]), shape])


def select(writer: Writer, operation: ops.Select) -> None:
    """Where."""
    mask, *others = (writer.operand(name) for name in operation.inputs)
    condition = writer.graph.node("Cast", [mask], f"{operation.name}/condition", to=TensorProto.BOOL)
    writer.moved(operation.output, "Where", [condition, *others])


def embedding(writer: Writer, operation: ops.Embedding) -> None:
    """Gather of int8 rows."""
    stored = _constant(writer, operation, "rows/codes", array_of(operation.weight.kernel), numpy.int8)
    rows = writer.graph.node("DequantizeLinear", [stored, *writer.scale(1.0)], f"{operation.name}/rows")
    writer.moved(operation.output, "Gather", [rows, codes_of(operation.inputs[0])], axis=0)


def arg_max(writer: Writer, operation: ops.ArgMax) -> None:
    """ArgMax, which gives the first of equals."""
    settings = {"axis": operation.dim, "keepdims": int(operation.keepdim), "select_last_index": 0}
    writer.moved(operation.output, "ArgMax", [writer.operand(operation.inputs[0])], **settings)


def top_k(writer: Writer, operation: ops.TopKValues | ops.TopKIndices) -> None:
    """TopK, which puts the lower index first among equals."""
    count = _constant(writer, operation, "k", [operation.k])
    settings = {"axis": operation.dim, "largest": int(operation.largest), "sorted": 1}
    outputs = f"{operation.name}/values", f"{operation.name}/indices"
    writer.graph.nodes_of("TopK", [writer.operand(operation.inputs[0]), count], outputs, **settings)
    writer.moved(operation.output, "Identity", [outputs[isinstance(operation, ops.TopKIndices)]])


def index_table(writer: Writer, operation: ops.IndexTable) -> None:
    """Gather of the table's entries."""
    entries = _constant(writer, operation, "table", array_of(operation.codes))
    writer.moved(operation.output, "Gather", [entries, codes_of(operation.inputs[0])], axis=0)


def cumulate(writer: Writer, operation: ops.CumulativeSum) -> None:
    """CumSum."""
    axis = _constant(writer, operation, "axis", operation.dim)
    writer.moved(operation.output, "CumSum", [codes_of(operation.inputs[0]), axis])


def gather(writer: Writer, operation: ops.Gather) -> None:
    """GatherElements."""
    values, indices = operation.inputs
    writer.moved(operation.output, "GatherElements", [writer.operand(values), codes_of(indices)], axis=operation.dim)
