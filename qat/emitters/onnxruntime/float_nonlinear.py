"""The float forms of softmax, its logarithm, normalization and division: in the float network, and in float islands."""

from collections.abc import Callable

import numpy
from onnx import TensorProto
from torch import Tensor

from qat.emitters.onnxruntime.float_nodes import FloatNodes
from qat.emitters.onnxruntime.graph import array_of
from qat.integer import operations as ops
from qat.integer.operations import Operation

#: What masked scores are before a float softmax; twice as much is still finite.
_MASKED = -1e38


def _softmax(nodes: FloatNodes) -> None:
    axis, scores = nodes.operation.dim, nodes.sources[0]
    if len(nodes.sources) == 1:
        nodes.add("Softmax", axis=axis)
        return
    mask = nodes.sources[1]
    taken = nodes.step("taken", "Cast", [mask], to=TensorProto.BOOL)
    scores = nodes.step("scores", "Where", [taken, scores, nodes.constant("masked", _MASKED, numpy.float32)])
    # A row of which nothing takes part is zero, not even shares.
    nodes.add("Mul", [nodes.step("shares", "Softmax", [scores], axis=axis), mask])


def _log_softmax(nodes: FloatNodes) -> None:
    nodes.add("LogSoftmax", axis=nodes.operation.dim)


def _divide(nodes: FloatNodes) -> None:
    first, second = nodes.sources
    zero = nodes.constant("zero", 0.0, numpy.float32)
    step = nodes.constant("step", nodes.value(nodes.operation.inputs[1]).grid.scale, numpy.float32)
    equal = nodes.step("equal", "Equal", [second, zero])
    nodes.add("Div", [first, nodes.step("divisor", "Where", [equal, step, second])])


def _normalize(nodes: FloatNodes) -> None:
    operation = nodes.operation
    source, output = (nodes.value(name) for name in (operation.inputs[0], operation.output))
    epsilon, gain, shift = operation.factors.reals(source.grid, output.grid, operation.l2)
    kept = len(source.shape) - len(operation.dims)
    if operation.centered and operation.dims == tuple(range(kept + 1, len(source.shape) + 1)):
        _layer_norm(nodes, source.shape[kept:], kept + 1, epsilon, gain, shift)
        return
    axes = nodes.constant("axes", operation.dims, numpy.int64)
    values = nodes.sources[0]
    if operation.centered:
        values = nodes.step("centered", "Sub", [values, nodes.step("mean", "ReduceMean", [values, axes], keepdims=1)])
    square = nodes.step("square", "Mul", [values, values])
    total = nodes.step("total", "ReduceSum" if operation.l2 else "ReduceMean", [square, axes], keepdims=1)
    least = nodes.constant("epsilon", epsilon, numpy.float32)
    if operation.l2:
        root = nodes.step("least", "Max", [nodes.step("root", "Sqrt", [total]), least])
    else:
        root = nodes.step("root", "Sqrt", [nodes.step("least", "Add", [total, least])])
    normal = nodes.step("normal", "Div", [values, root])
    _scale_and_shift(nodes, normal, gain, shift)


def _layer_norm(
    nodes: FloatNodes, shape: tuple[int, ...], axis: int, epsilon: float, gain: Tensor, shift: Tensor
) -> None:
    """Over the last dimensions, of `shape`: one node, which takes gains of that shape alone."""
    inside = tuple(gain.shape) == shape or gain.numel() == 1
    if not inside:
        ones = nodes.constant("ones", numpy.ones(shape), numpy.float32)
        normal = nodes.step("normal", "LayerNormalization", [*nodes.sources, ones], axis=axis, epsilon=epsilon)
        _scale_and_shift(nodes, normal, gain, shift)
        return
    named = {"gain": gain, "shift": shift}
    constants = [nodes.constant(key, array_of(part.expand(shape)), numpy.float32) for key, part in named.items()]
    nodes.add("LayerNormalization", [*nodes.sources, *constants], axis=axis, epsilon=epsilon)


def _scale_and_shift(nodes: FloatNodes, normal: str, gain: Tensor, shift: Tensor) -> None:
    scaled = nodes.step("scaled", "Mul", [normal, nodes.constant("gain", array_of(gain), numpy.float32)])
    nodes.add("Add", [scaled, nodes.constant("shift", array_of(shift), numpy.float32)])


#: What adds the float nodes of each kind of operation whose integer form takes many.
NONLINEAR_FORMS: dict[type[Operation], Callable[[FloatNodes], None]] = {
    ops.Divide: _divide,
    ops.Softmax: _softmax,
    ops.LogSoftmax: _log_softmax,
    ops.Normalize: _normalize,
}
