"""An integer program as an ONNX file in QOperator form, on uint8 codes."""

import numpy

from qat.emitters.onnxruntime.forms import FORMS
from qat.emitters.onnxruntime.graph import array_of
from qat.emitters.onnxruntime.writer import Writer, tensor_of
from qat.errors import ExportError
from qat.integer.operations import Operation
from qat.integer.program import IntegerProgram


def build(program: IntegerProgram) -> bytes:
    """The bytes of the ONNX file."""
    writer = Writer(program)
    for edge in program.inputs:
        writer.graph.claim(edge.name)
        writer.quantize(edge.name, edge.value)
    for constant in program.constants:
        codes = array_of(constant.codes).astype(numpy.int64) + constant.grid.unsigned_offset
        writer.check_grid(constant.name, constant.grid)
        writer.graph.constant(tensor_of(constant.name), codes[None], numpy.uint8)
    for operation in program.operations:
        writer.check_grid(operation.output, writer.grid(operation.output))
        write(writer, operation)
    for edge in program.outputs:
        scale, zero_point = writer.grid_constants(edge.value)
        writer.graph.node("DequantizeLinear", [tensor_of(edge.value), scale, zero_point], edge.name)
    shapes = {name: entry.shape for name, entry in program.named.items()}
    return writer.graph.to_bytes(
        [(edge.name, shapes[edge.value]) for edge in program.inputs],
        [(edge.name, shapes[edge.value]) for edge in program.outputs],
    )


def write(writer: Writer, operation: Operation) -> None:
    """Add the nodes of one operation."""
    if type(operation) not in FORMS:
        raise ExportError(f"{type(operation).__name__} {operation.name!r} has no ONNX Runtime form.")
    FORMS[type(operation)](writer, operation)
