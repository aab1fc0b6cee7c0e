"""Each operation as nodes of the float network behind a program, one function per kind."""

from collections.abc import Callable

import numpy
from onnx import TensorProto

from qat.emitters.onnxruntime import float_functions
from qat.emitters.onnxruntime.float_nodes import FloatNodes
from qat.emitters.onnxruntime.float_nonlinear import NONLINEAR_FORMS
from qat.emitters.onnxruntime.graph import array_of, pads_of
from qat.integer import operations as ops
from qat.integer.operations import Operation
from qat.integer.reals import dequantize
from qat.integer.values import Constant, Grid, Value


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


def _plain(kind: str) -> Callable[[FloatNodes], object]:
    """A node of that kind and no settings."""
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
    values = [nodes.value(name) for name in nodes.operation.inputs]
    pairs = list(zip(nodes.sources, values, strict=True))
    like = next(source for source, value in pairs if isinstance(value, Value))
    sources = [
        nodes.graph.repeat(source, value.shape, like, f"{nodes.target}/{place}")
        if isinstance(value, Constant)
        else source
        for place, (source, value) in enumerate(pairs)
    ]
    nodes.add("Concat", sources, axis=nodes.operation.dim)


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


def _matmul(nodes: FloatNodes) -> None:
    if nodes.operation.factor == 1.0:
        nodes.add("MatMul")
        return
    product = nodes.graph.node("MatMul", nodes.sources, f"{nodes.target}/product")
    nodes.add("Mul", [product, nodes.constant("factor", nodes.operation.factor, numpy.float32)])


def _take(nodes: FloatNodes) -> None:
    indices = nodes.constant("indices", array_of(nodes.operation.indices), numpy.int64)
    nodes.add("Gather", [*nodes.sources, indices], axis=nodes.operation.dim)


def _expand(nodes: FloatNodes) -> None:
    nodes.add("Expand", [*nodes.sources, nodes.constant("shape", (1, *nodes.operation.shape), numpy.int64)])


def _select(nodes: FloatNodes) -> None:
    mask, *others = nodes.sources
    condition = nodes.graph.node("Cast", [mask], f"{nodes.target}/condition", to=TensorProto.BOOL)
    nodes.add("Where", [condition, *others])


def _embedding(nodes: FloatNodes) -> None:
    weight = nodes.operation.weight
    rows = nodes.constant("rows", array_of(weight.kernel * weight.scale[:, None]), numpy.float32)
    nodes.add("Gather", [rows, *nodes.sources], axis=0)


def _arg_max(nodes: FloatNodes) -> None:
    nodes.add("ArgMax", axis=nodes.operation.dim, keepdims=int(nodes.operation.keepdim))


def _top_k(nodes: FloatNodes) -> None:
    operation = nodes.operation
    count = nodes.constant("k", [operation.k], numpy.int64)
    indices = isinstance(operation, ops.TopKIndices)
    outputs = (f"{nodes.target}/values", nodes.target) if indices else (nodes.target, f"{nodes.target}/indices")
    nodes.graph.nodes_of("TopK", [*nodes.sources, count], outputs, axis=operation.dim, largest=int(operation.largest))


def _index_table(nodes: FloatNodes) -> None:
    entries = nodes.constant("table", array_of(nodes.operation.codes), numpy.int64)
    nodes.add("Gather", [entries, *nodes.sources], axis=0)


def _cumulate(nodes: FloatNodes) -> None:
    nodes.add("CumSum", [*nodes.sources, nodes.constant("axis", nodes.operation.dim, numpy.int64)])


def _gather(nodes: FloatNodes) -> None:
    nodes.add("GatherElements", axis=nodes.operation.dim)


#: Nodes of functions of one value that have a single one.
_FUNCTIONS: dict[str, tuple[str, dict]] = {
    "gelu": ("Gelu", {}),
    "gelu_tanh": ("Gelu", {"approximate": "tanh"}),
    "sigmoid": ("Sigmoid", {}),
    "tanh": ("Tanh", {}),
    "hardswish": ("HardSwish", {}),
    "hardsigmoid": ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}),
    "elu": ("Elu", {}),
    "mish": ("Mish", {}),
    "softplus": ("Softplus", {}),
    "exp": ("Exp", {}),
    "erf": ("Erf", {}),
    "abs": ("Abs", {}),
    "log": ("Log", {}),
    "sqrt": ("Sqrt", {}),
    "reciprocal": ("Reciprocal", {}),
    "sin": ("Sin", {}),
    "cos": ("Cos", {}),
}


def _table(nodes: FloatNodes) -> None:
    """The function where it has a name, else the table's own points."""
    operation, (source,) = nodes.operation, nodes.sources
    if operation.function in _FUNCTIONS:
        kind, attributes = _FUNCTIONS[operation.function]
        nodes.add(kind, **attributes)
    elif operation.function == "silu":
        nodes.add("Mul", [source, nodes.graph.node("Sigmoid", [source], f"{nodes.target}/sigmoid")])
    else:
        _look_up(nodes)


def _look_up(nodes: FloatNodes) -> None:
    operation, graph = nodes.operation, nodes.graph
    value, grid = nodes.value(operation.inputs[0]), nodes.value(operation.output).grid
    points = array_of(dequantize(operation.codes, grid))
    places = nodes.sources[0]
    if isinstance(value.grid, Grid):
        scale = nodes.constant("scale", value.grid.scale, numpy.float32)
        steps = graph.node("Div", [places, scale], f"{nodes.target}/steps")
        whole = graph.node("Round", [steps], f"{nodes.target}/whole")
        shift = nodes.constant("shift", value.grid.zero_point - value.grid.quant_min, numpy.float32)
        shifted = graph.node("Add", [whole, shift], f"{nodes.target}/shifted")
        ends = [nodes.constant(key, end, numpy.float32) for key, end in (("min", 0), ("max", points.shape[-1] - 1))]
        clipped = graph.node("Clip", [shifted, *ends], f"{nodes.target}/clipped")
        places = graph.node("Cast", [clipped], f"{nodes.target}/places", to=TensorProto.INT64)
    if points.ndim == 2:
        firsts = numpy.arange(0, points.size, points.shape[1]).reshape(1, -1, *[1] * (len(value.shape) - 1))
        firsts = nodes.constant("firsts", firsts, numpy.int64)
        places = graph.node("Add", [places, firsts], f"{nodes.target}/of_channels")
    nodes.add("Gather", [nodes.constant("points", points.reshape(-1), numpy.float32), places], axis=0)


#: What adds the nodes of each kind of operation.
FLOAT_FORMS: dict[type[Operation], Callable[[FloatNodes], object]] = {
    **NONLINEAR_FORMS,
    ops.FloatIsland: float_functions.write,
    ops.Conv: _convolution,
    ops.Linear: _linear,
    ops.MatMul: _matmul,
    ops.Add: _plain("Add"),
    ops.Mul: _plain("Mul"),
    ops.Requantize: _requantize,
    ops.Table: _table,
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
    ops.Take: _take,
    ops.Expand: _expand,
    ops.Negate: _plain("Neg"),
    ops.Select: _select,
    ops.Embedding: _embedding,
    ops.ArgMax: _arg_max,
    ops.TopKValues: _top_k,
    ops.TopKIndices: _top_k,
    ops.IndexTable: _index_table,
    ops.IndexSum: _plain("Add"),
    ops.IndexProduct: _plain("Mul"),
    ops.CumulativeSum: _cumulate,
    ops.Gather: _gather,
}
