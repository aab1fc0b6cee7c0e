"""An integer program as an ONNX file in QOperator form, on uint8 codes."""

from qat.emitters.onnxruntime.forms import FORMS, wide
from qat.emitters.onnxruntime.forms.loops import scan
from qat.emitters.onnxruntime.islands import is_island, write_island
from qat.emitters.onnxruntime.writer import Writer, tensor_of
from qat.errors import ExportError
from qat.integer.operations import Loop, Operation
from qat.integer.program import IntegerProgram


def build(program: IntegerProgram, nonlinear: str = "integer") -> bytes:
    """The bytes of the ONNX file. nonlinear: "integer", or "float_island" for `islands.islands_of` in real numbers."""
    writer = Writer(program)
    for edge in program.inputs:
        writer.input(edge)
    _write_operations(writer, nonlinear)
    for edge in program.outputs:
        writer.output(edge)
    return writer.graph.to_bytes(program)


def _write_operations(writer: Writer, nonlinear: str) -> None:
    """Add the nodes of a program, or of one step of a loop."""
    for constant in writer.program.constants:
        writer.constant(constant)
    for operation in writer.program.operations:
        if isinstance(operation, Loop):
            _write_loop(writer, operation)
        elif wide.is_wide(writer, operation):
            wide.write(writer, operation)
        elif is_island(operation, nonlinear):
            write_island(writer, operation)
        else:
            write(writer, operation)


def _write_loop(writer: Writer, loop: Loop) -> None:
    """A Scan node; its step computes with integers alone."""
    step = Writer(loop.body, writer.graph.inner(loop.body))
    _write_operations(step, "integer")
    scan(writer.graph, step.graph, writer.program, loop, tensor_of, step.tensor_type)


def write(writer: Writer, operation: Operation) -> None:
    """Add the nodes of one operation."""
    if type(operation) not in FORMS:
        raise ExportError(f"{type(operation).__name__} {operation.name!r} has no ONNX Runtime form.")
    FORMS[type(operation)](writer, operation)
