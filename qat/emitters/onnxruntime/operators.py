"""An integer program as an ONNX file in QOperator form, on uint8 codes."""

from qat.emitters.onnxruntime.forms import FORMS
from qat.emitters.onnxruntime.writer import Writer
from qat.errors import ExportError
from qat.integer.operations import Operation
from qat.integer.program import IntegerProgram


def build(program: IntegerProgram) -> bytes:
    """The bytes of the ONNX file."""
    writer = Writer(program)
    for edge in program.inputs:
        writer.input(edge)
    for constant in program.constants:
        writer.constant(constant)
    for operation in program.operations:
        writer.check_grid(operation.output, writer.grid(operation.output))
        write(writer, operation)
    for edge in program.outputs:
        writer.output(edge)
    return writer.graph.to_bytes(program)


def write(writer: Writer, operation: Operation) -> None:
    """Add the nodes of one operation."""
    if type(operation) not in FORMS:
        raise ExportError(f"{type(operation).__name__} {operation.name!r} has no ONNX Runtime form.")
    FORMS[type(operation)](writer, operation)
