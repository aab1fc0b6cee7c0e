"""Each operation as nodes of the float network behind a program, one function per kind."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy

from qat.emitters.onnxruntime.graph import Graph, array_of, pads_of
from qat.integer import operations as ops
from qat.integer.operations import Operation
from qat.integer.program import IntegerProgram
from qat.integer.values import Constant, Value


@dataclass(frozen=True)
class FloatNodes:
    """Where the nodes of one operation go. sources: names of real inputs. target: name of the real result."""

    graph: Graph
    program: IntegerProgram
    operation: Operation
    sources: list[str]
    target: str

    def value(self, name: str) -> Value | Constant:
        """A value or constant of the program."""
        return self.program.value(name)

    def constant(self, key: str, array, dtype) -> str:
        """An initializer called after the result."""
        return self.graph.constant(f"{self.target}/{key}", array, dtype)

    def add(self, kind: str, inputs: list[str] | None = None, **attributes) -> str:
        """The node that makes the result, of the operation's inputs or of `inputs`."""
        return self.graph.node(kind, self.sources if inputs is None else inputs, self.target, **attributes)


def _convolution(nodes: FloatNodes) -> None:
    operation = nodes.operation
    nodes.add(
        "Conv",
        [*nodes.sources, *_weights(nodes)],
        kernel_shape=operation.kernel_size,
        strides=operation.stride,
        pads=pads_of(operation.padding),
        dilations=operation.dilation,
        group=operation.groups,
    )


def _linear(nodes: FloatNodes) -> None:
    flat = len(nodes.value(nodes.operation.output).shape) == 1
    weight, bias = _weights(nodes, transposed=not flat)
    if flat:
        nodes.add("Gemm", [*nodes.sources, weight, bias], transB=1)
        return
    product = nodes.graph.node("MatMul", [*nodes.sources, weight], f"{nodes.target}/product")
    nodes.add("Add", [product, bias])


def _weights(nodes: FloatNodes, transposed: bool = False) -> list[str]:
    """Names of the real weight and bias."""
    operation = nodes.operation
    scale = operation.weight.scale
    weight = operation.weight.kernel * scale.reshape(-1, *[1] * (operation.weight.codes.dim() - 1))
    bias = operation.bias * scale * nodes.value(operation.inputs[0]).grid.scale
    return [
        nodes.graph.constant(f"{operation.name}/weight", array_of(weight.T if transposed else weight), numpy.float32),
        nodes.graph.constant(f"{operation.name}/bias", array_of(bias), numpy.float32),
    ]


def _binary(kind: str) -> Callable[[FloatNodes], object]:
    return lambda nodes: nodes.add(kind)


def _requantize(nodes: FloatNodes) -> None:
    nodes.add("Mul", [*nodes.sources, nodes.constant("factor", nodes.operation.factor, numpy.float32)])


def _average_pool(nodes: FloatNodes) -> None:
    operation = nodes.operation
    pads = pads_of(operation.padding)
    nodes.add(
        "AveragePool",
        pads=pads,
        count_include_pad=1,
        kernel_shape=operation.kernel_size,
        strides=operation.stride,
    )


def _max_pool(nodes: FloatNodes) -> None:
    operation = nodes.operation
    padding = operation.full_padding(nodes.value(operation.inputs[0]).shape)
    nodes.add(
        "MaxPool",
        pads=pads_of(padding),
        dilations=operation.dilation,
        kernel_shape=operation.kernel_size,
        strides=operation.stride,
    )


def _reduction(kind: str) -> Callable[[FloatNodes], object]:
    def write(nodes: FloatNodes) -> None:
        axes = nodes.constant("axes", nodes.operation.dims, numpy.int64)
        nodes.add(kind, [*nodes.sources, axes], keepdims=int(nodes.operation.keepdim))

    return write


def _concatenate(nodes: FloatNodes) -> None:
    nodes.add("Concat", axis=nodes.operation.dim)


def _reshape(nodes: FloatNodes) -> None:
    nodes.add("Reshape", [*nodes.sources, nodes.constant("shape", (0, *nodes.operation.shape), numpy.int64)])


def _transpose(nodes: FloatNodes) -> None:
    nodes.add("Transpose", perm=nodes.operation.permutation)


def _slice(nodes: FloatNodes) -> None:
    operation = nodes.operation
    axes = list(range(1, len(operation.starts) + 1))
    cuts = {"starts": operation.starts, "ends": operation.ends, "axes": axes, "steps": operation.steps}
    nodes.add("Slice", [*nodes.sources, *(nodes.constant(key, cut, numpy.int64) for key, cut in cuts.items())])


def _pad(nodes: FloatNodes) -> None:
    amounts = nodes.constant("amounts", pads_of(((0, 0), *nodes.operation.amounts)), numpy.int64)
    nodes.add("Pad", [*nodes.sources, amounts])


#: What adds the nodes of each kind of operation.
FLOAT_FORMS: dict[type[Operation], Callable[[FloatNodes], object]] = {
    ops.Conv: _convolution,
    ops.Linear: _linear,
    ops.Add: _binary("Add"),
    ops.Mul: _binary("Mul"),
    ops.Requantize: _requantize,
    ops.AveragePool: _average_pool,
    ops.Mean: _reduction("ReduceMean"),
    ops.Sum: _reduction("ReduceSum"),
    ops.MaxPool: _max_pool,
    ops.Max: _reduction("ReduceMax"),
    ops.Concatenate: _concatenate,
    ops.Reshape: _reshape,
    ops.Transpose: _transpose,
    ops.Slice: _slice,
    ops.Pad: _pad,
}
