"""Codes that are chosen or mirrored, and where the largest lie."""

import numpy
from onnx import TensorProto

from qat.emitters.onnxruntime.writer import UINT8_MAX, Writer, tensor_of
from qat.integer.operations import ArgMax, Negate, Select, TopKIndices, TopKValues


def negate(writer: Writer, operation: Negate) -> None:
    """BitwiseNot, which is 255 - code; for narrower grids a subtraction in int32."""
    source, target = tensor_of(operation.inputs[0]), tensor_of(operation.output)
    grid, graph = writer.grid(operation.output), writer.graph
    total = grid.quant_min + grid.quant_max + 2 * grid.unsigned_offset
    if total == UINT8_MAX:
        graph.node("BitwiseNot", [source], target)
        return
    wide = graph.node("Cast", [source], f"{target}/wide", to=TensorProto.INT32)
    ends = graph.constant(f"{target}/ends", total, numpy.int32)
    mirrored = graph.node("Sub", [ends, wide], f"{target}/mirrored")
    graph.node("Cast", [mirrored], target, to=TensorProto.UINT8)


def select(writer: Writer, operation: Select) -> None:
    """Where."""
    mask, first, second = map(tensor_of, operation.inputs)
    target = tensor_of(operation.output)
    condition = writer.graph.node("Cast", [mask], f"{target}/condition", to=TensorProto.BOOL)
    writer.graph.node("Where", [condition, first, second], target)


def arg_max(writer: Writer, operation: ArgMax) -> None:
    """ArgMax, which gives the first of equals."""
    target = tensor_of(operation.output)
    settings = {"axis": operation.dim, "keepdims": int(operation.keepdim), "select_last_index": 0}
    writer.graph.node("ArgMax", [_int32(writer, operation)], target, **settings)


def top_values(writer: Writer, operation: TopKValues) -> None:
    """The first output of TopK."""
    target = tensor_of(operation.output)
    wide, _ = _top(writer, operation)
    writer.graph.node("Cast", [wide], target, to=writer.tensor_type(operation.output))


def top_indices(writer: Writer, operation: TopKIndices) -> None:
    """The second output of TopK, which puts the lower index first among equals."""
    writer.graph.node("Identity", [_top(writer, operation)[1]], tensor_of(operation.output))


def _top(writer: Writer, operation: TopKValues) -> tuple[str, str]:
    target = tensor_of(operation.output)
    count = writer.graph.constant(f"{target}/k", [operation.k], numpy.int64)
    settings = {"axis": operation.dim, "largest": int(operation.largest), "sorted": 1}
    outputs = f"{target}/values", f"{target}/indices"
    return writer.graph.nodes_of("TopK", [_int32(writer, operation), count], outputs, **settings)


def _int32(writer: Writer, operation: ArgMax | TopKValues) -> str:
    """The input as the type that both kernels take."""
    return writer.graph.node(
        "Cast", [tensor_of(operation.inputs[0])], f"{tensor_of(operation.output)}/wide", to=TensorProto.INT32
    )
