"""An integer program as an ONNX file in QOperator form, on uint8 codes."""

from qat.emitters.onnxruntime.float_nonlinear import NONLINEAR_FORMS
from qat.emitters.onnxruntime.forms import FORMS, wide
from qat.emitters.onnxruntime.islands import write_island
from qat.emitters.onnxruntime.writer import Writer
from qat.errors import ExportError
from qat.integer.operations import Operation
from qat.integer.program import IntegerProgram


def build(program: IntegerProgram, nonlinear: str = "integer") -> bytes:
    """The bytes of the ONNX file. nonlinear: "integer", or "float_island" for `islands.islands_of` in real numbers."""
    writer = Writer(program)
    for edge in program.inputs:
        writer.input(edge)
    for constant in program.constants:
        writer.constant(constant)
    for operation in program.operations:
        if wide.is_wide(writer, operation):
            wide.write(writer, operation)
        elif nonlinear == "float_island" and type(operation) in NONLINEAR_FORMS:
            write_island(writer, operation)
        else:
            write(writer, operation)
    for edge in program.outputs:
        writer.output(edge)
    return writer.graph.to_bytes(program)


def write(writer: Writer, operation: Operation) -> None:
    """Add the nodes of one operation."""
    if type(operation) not in FORMS:
        raise ExportError(f"{type(operation).__name__} {operation.name!r} has no ONNX Runtime form.")
    FORMS[type(operation)](writer, operation)
