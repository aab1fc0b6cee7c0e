"""An integer program as an ONNX file in QDQ form, on int8 codes with zero point 0."""

from qat.emitters.onnxruntime.graph import Graph
from qat.emitters.tensorrt.forms import FORMS
from qat.emitters.tensorrt.writer import Writer
from qat.integer.program import IntegerProgram


def graph_of(program: IntegerProgram) -> Graph:
    """The nodes of `program`, of one length."""
    writer = Writer(program)
    for constant in program.constants:
        writer.write_constant(constant)
    for edge in program.inputs:
        writer.input(edge)
    for operation in program.operations:
        FORMS[type(operation)](writer, operation)
    for edge in program.outputs:
        writer.output(edge)
    return writer.graph
