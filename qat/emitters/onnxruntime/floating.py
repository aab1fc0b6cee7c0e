"""The float network behind a program, as ONNX: what its latency is measured beside.

The same operations with the weights and biases that the integers stand for, in float32, no rounding between; a relu or
a clamp that the integer program fused is a node of its own, for the runtime to fuse again.
"""

from os import PathLike
from pathlib import Path

import numpy

from qat.emitters.onnxruntime.graph import Graph, array_of, pads_of
from qat.errors import ExportError
from qat.integer.interpreter import dequantize
from qat.integer.operations import (
    Add,
    AveragePool,
    ComputingOperation,
    Concatenate,
    Conv,
    Linear,
    Max,
    MaxPool,
    Mean,
    Mul,
    Operation,
    Pad,
    Requantize,
    Reshape,
    Slice,
    Transpose,
    WeightedOperation,
)
from qat.integer.program import IntegerProgram


def emit_float(program: IntegerProgram, path: str | PathLike) -> None:
    """Write the float32 network behind `program` as an ONNX file with the same inputs and outputs."""
    graph = Graph()
    for edge in program.inputs:
        graph.claim(edge.name)
        graph.node("Identity", [edge.name], _real(edge.value))
    for constant in program.constants:
        graph.constant(_real(constant.name), array_of(dequantize(constant.codes, constant.grid))[None], numpy.float32)
    for operation in program.operations:
        _write(graph, program, operation)
    for edge in program.outputs:
        graph.node("Identity", [_real(edge.value)], edge.name)
    edges = [
        [(edge.name, program.value(edge.value).shape) for edge in side] for side in (program.inputs, program.outputs)
    ]
    Path(path).write_bytes(graph.to_bytes(*edges))


def _real(value: str) -> str:
    return f"real/{value}"


def _write(graph: Graph, program: IntegerProgram, operation: Operation) -> None:
    sources, target = [_real(name) for name in operation.inputs], _real(operation.output)
    result = target
    activations = _activations(program, operation)
    if activations:
        result = f"{target}/before"
    _compute(graph, program, operation, sources, result)
    for index, (kind, limits) in enumerate(activations, start=1):
        name = target if index == len(activations) else f"{target}/{index}"
        constants = [graph.constant(f"{name}/{end}", limit, numpy.float32) for end, limit in limits]
        result = graph.node(kind, [result, *constants], name)


def _activations(program: IntegerProgram, operation: Operation) -> list[tuple[str, list[tuple[str, float]]]]:
    """The relu or clamp that the operation has taken in, as (node kind, its limits)."""
    if not isinstance(operation, ComputingOperation):
        return []
    grid = program.value(operation.output).grid
    low, high = (grid.scale * (code - grid.zero_point) for code in (operation.clamp_min, operation.clamp_max))
    if operation.clamp_max < grid.quant_max:
        return [("Clip", [("min", low), ("max", high)])]
    return [("Relu", [])] if operation.clamp_min == grid.zero_point else []


def _compute(graph: Graph, program: IntegerProgram, operation: Operation, sources: list[str], target: str) -> None:
    match operation:
        case Conv():
            graph.node(
                "Conv",
                [*sources, *_weights(graph, program, operation)],
                target,
                kernel_shape=operation.kernel_size,
                strides=operation.stride,
                pads=pads_of(operation.padding),
                dilations=operation.dilation,
                group=operation.groups,
            )
        case Linear():
            weight, bias = _weights(
                graph, program, operation, transposed=len(program.value(operation.output).shape) > 1
            )
            if len(program.value(operation.output).shape) == 1:
                graph.node("Gemm", [*sources, weight, bias], target, transB=1)
            else:
                product = graph.node("MatMul", [*sources, weight], f"{target}/product")
                graph.node("Add", [product, bias], target)
        case Add() | Mul():
            graph.node(type(operation).__name__, sources, target)
        case Requantize():
            factor = graph.constant(f"{target}/factor", operation.factor, numpy.float32)
            graph.node("Mul", [*sources, factor], target)
        case AveragePool() | MaxPool():
            pooling = {"kernel_shape": operation.kernel_size, "strides": operation.stride}
            if isinstance(operation, MaxPool):
                padding = operation.full_padding(program.value(operation.inputs[0]).shape)
                graph.node("MaxPool", sources, target, pads=pads_of(padding), dilations=operation.dilation, **pooling)
            else:
                pads = pads_of(operation.padding)
                graph.node("AveragePool", sources, target, pads=pads, count_include_pad=1, **pooling)
        case Mean() | Max():
            kind = "ReduceMean" if isinstance(operation, Mean) else "ReduceMax"
            axes = graph.constant(f"{target}/axes", operation.dims, numpy.int64)
            graph.node(kind, [*sources, axes], target, keepdims=int(operation.keepdim))
        case Concatenate():
            graph.node("Concat", sources, target, axis=operation.dim)
        case Reshape():
            shape = graph.constant(f"{target}/shape", (0, *operation.shape), numpy.int64)
            graph.node("Reshape", [*sources, shape], target)
        case Transpose():
            graph.node("Transpose", sources, target, perm=operation.permutation)
        case Slice():
            axes = list(range(1, len(operation.starts) + 1))
            cuts = {"starts": operation.starts, "ends": operation.ends, "axes": axes, "steps": operation.steps}
            names = [graph.constant(f"{target}/{key}", cut, numpy.int64) for key, cut in cuts.items()]
            graph.node("Slice", [*sources, *names], target)
        case Pad():
            amounts = graph.constant(f"{target}/amounts", pads_of(((0, 0), *operation.amounts)), numpy.int64)
            graph.node("Pad", [*sources, amounts], target)
        case _:
            raise ExportError(f"{type(operation).__name__} {operation.name!r} has no float ONNX form.")


def _weights(
    graph: Graph, program: IntegerProgram, operation: WeightedOperation, transposed: bool = False
) -> list[str]:
    """Names of the real weight and bias."""
    scale = operation.weight.scale
    weight = operation.weight.kernel * scale.reshape(-1, *[1] * (operation.weight.codes.dim() - 1))
    bias = operation.bias * scale * program.value(operation.inputs[0]).grid.scale
    return [
        graph.constant(f"{operation.name}/weight", array_of(weight.T if transposed else weight), numpy.float32),
        graph.constant(f"{operation.name}/bias", array_of(bias), numpy.float32),
    ]
