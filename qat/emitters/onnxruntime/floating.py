"""The float network behind a program, as ONNX: what its latency is measured beside.

The same operations with the weights and biases that the integers stand for, in float32, no rounding between; a relu or
a clamp that the integer program fused is a node of its own, for the runtime to fuse again.
"""

from os import PathLike
from pathlib import Path

import numpy
from onnx import TensorProto

from qat.emitters.onnxruntime.float_forms import FLOAT_FORMS
from qat.emitters.onnxruntime.float_nodes import FloatNodes
from qat.emitters.onnxruntime.forms.loops import scan
from qat.emitters.onnxruntime.graph import Graph, array_of
from qat.emitters.onnxruntime.model_file import written
from qat.errors import ExportError
from qat.integer.operations import ComputingOperation, Loop, Operation
from qat.integer.program import IntegerProgram
from qat.integer.reals import dequantize


def emit_float(program: IntegerProgram, path: str | PathLike) -> None:
    """Write the float32 network behind `program` as an ONNX file with the same inputs and outputs, none of codes."""
    program = program.with_real_edges()
    graph = Graph(program)
    for edge in program.inputs:
        graph.claim(edge.name)
        graph.node("Identity", [edge.name], _real(edge.value))
    _write_operations(graph, program)
    for edge in program.outputs:
        graph.node("Identity", [_real(edge.value)], edge.name)
    with written(graph, program, Path(path)):
        pass


def _write_operations(graph: Graph, program: IntegerProgram) -> None:
    """Add the nodes of a program, or of one step of a loop."""
    for constant in program.constants:
        reals = array_of(dequantize(constant.codes, constant.grid))[None]
        name = _real(constant.name)
        if constant.sizes:
            graph.cut(graph.constant(f"{name}/whole", reals, reals.dtype), name, constant.sizes, 1)
        else:
            graph.constant(name, reals, reals.dtype)
    for operation in program.operations:
        if isinstance(operation, Loop):
            step = graph.inner(operation.body)
            _write_operations(step, operation.body)
            scan(graph, step, program, operation, _real, lambda name: TensorProto.FLOAT)
        else:
            _write(graph, program, operation)


def _real(value: str) -> str:
    return f"real/{value}"


def _write(graph: Graph, program: IntegerProgram, operation: Operation) -> None:
    sources, target = [_real(name) for name in operation.inputs], _real(operation.output)
    result = target
    activations = _activations(program, operation)
    if activations:
        result = f"{target}/before"
    if type(operation) not in FLOAT_FORMS:
        raise ExportError(f"{type(operation).__name__} {operation.name!r} has no float ONNX form.")
    FLOAT_FORMS[type(operation)](FloatNodes(graph, program, operation, sources, result))
    for index, (kind, limits) in enumerate(activations, start=1):
        name = target if index == len(activations) else f"{target}/{index}"
        constants = [graph.constant(f"{name}/{end}", limit, numpy.float32) for end, limit in limits]
        result = graph.node(kind, [result, *constants], name)


def _activations(program: IntegerProgram, operation: Operation) -> list[tuple[str, list[tuple[str, float]]]]:
    """The relu or clamp that the operation has taken in, as (node kind, its limits)."""
    if not isinstance(operation, ComputingOperation):
        return []
    match operation.real_limits(program.value(operation.output)):
        case None:
            return []
        case (0.0, None):
            return [("Relu", [])]
        case low, high:
            return [("Clip", [("min", low), ("max", high)])]
