"""Softmax, its logarithm, normalization and division, which TensorRT computes in float32 between int8 tensors."""

from qat.emitters.onnxruntime.float_nodes import FloatNodes
from qat.emitters.onnxruntime.float_nonlinear import NONLINEAR_FORMS
from qat.emitters.tensorrt.writer import Writer
from qat.integer.operations import Operation

#: What a file computes in real numbers, and says so.
KINDS = tuple(NONLINEAR_FORMS)


def write(writer: Writer, operation: Operation) -> None:
    """DequantizeLinear by the scale, the float nodes of the operation, QuantizeLinear by the scale."""
    sources, result = [writer.reals(name) for name in operation.inputs], f"{operation.name}/real"
    NONLINEAR_FORMS[type(operation)](FloatNodes(writer.graph, writer.program, operation, sources, result))
    writer.finish(result, operation, writer.grid(operation.output).scale)
