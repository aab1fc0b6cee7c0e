"""Matrix products of two values."""

import numpy

from qat.emitters.onnxruntime.writer import Writer, tensor_of
from qat.integer.operations import MatMul
from qat.integer.values import float32


def matmul(writer: Writer, operation: MatMul) -> None:
    """QLinearMatMul; the factor is part of the second scale."""
    first, second = operation.inputs
    scale = float32(writer.grid(second).scale * operation.factor)
    operands = [
        tensor_of(first),
        *writer.grid_constants(first),
        tensor_of(second),
        writer.graph.constant(f"{operation.name}/second_scale", scale, numpy.float32),
        writer.grid_constants(second)[1],
        *writer.grid_constants(operation.output),
    ]
    writer.limited("QLinearMatMul", operands, operation)
