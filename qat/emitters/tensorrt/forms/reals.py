"""Softmax, its logarithm, normalization and division, which TensorRT computes in float32 between int8 tensors."""

import math

import numpy

from qat.emitters.onnxruntime.float_nodes import FloatNodes
from qat.emitters.onnxruntime.float_nonlinear import NONLINEAR_FORMS
from qat.emitters.tensorrt.writer import Writer
from qat.integer.operations import Divide, Operation

#: What a file computes in real numbers, and says so.
KINDS = tuple(NONLINEAR_FORMS)


def write(writer: Writer, operation: Operation) -> None:
    """DequantizeLinear by the scale, the float nodes of the operation, QuantizeLinear by the scale."""
    sources, result = [writer.reals(name) for name in operation.inputs], f"{operation.name}/real"
    NONLINEAR_FORMS[type(operation)](FloatNodes(writer.graph, writer.program, operation, sources, result))
    writer.finish(result, operation, writer.grid(operation.output).scale)


def divide(writer: Writer, operation: Divide) -> None:
    """Div of units, rounded as the program does: a tie away from zero, where a QuantizeLinear goes to the even code."""
    name, ratio = operation.name, operation.ratio
    first = writer.scaled(operation.inputs[0], math.ldexp(ratio.numerator, -ratio.shift), f"{name}/dividend")
    second = writer.units(operation.inputs[1])
    zero, one, half = (writer.constant(f"number/{number}", number, numpy.float32) for number in (0.0, 1.0, 0.5))
    nothing = writer.graph.node("Equal", [second, zero], f"{name}/nothing")
    divisor = writer.graph.node("Where", [nothing, one, second], f"{name}/divisor")
    quotient = writer.graph.node("Div", [first, divisor], f"{name}/quotient")
    raised = writer.graph.node("Add", [writer.graph.node("Abs", [quotient], f"{name}/size"), half], f"{name}/raised")
    whole = writer.graph.node("Floor", [raised], f"{name}/whole")
    signed = writer.graph.node("Mul", [whole, writer.graph.node("Sign", [quotient], f"{name}/sign")], f"{name}/signed")
    writer.finish(signed, operation)
