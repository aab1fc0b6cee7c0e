"""Weights of a real program in the forms that kernels take, each in the graph once for all layers that share it."""

import numpy
import torch
from onnx import TensorProto

from qat.emitters.onnxruntime.real.graph import RealGraph, padded_groups
from qat.integer.packing import pack
from qat.real.weights import RealWeight

#: Group sizes that MatMulNBits takes, and the bits of its containers by the bits of codes.
BLOCKS = (16, 32, 64, 128, 256)
CONTAINERS = {2: 2, 3: 4, 4: 4, 5: 8, 6: 8, 7: 8, 8: 8}
#: Of int8 codes of tokens in the uint8 tensors of kernels.
OFFSET = 128


def takes_groups(weight: RealWeight) -> bool:
    """Whether a kernel multiplies float activations with the codes as they are in the file."""
    return len(weight.shape) == 2 and weight.axis == 0 and weight.group_size in BLOCKS


def real_weight(graph: RealGraph, name: str) -> str:
    """A weight in real units, computed when the runtime loads the file."""
    return graph.once(("real", name), lambda: _real_weight(graph, name))


def _real_weight(graph: RealGraph, name: str) -> str:
    weight = graph.program.weights[name]
    steps = graph.codes(name, TensorProto.FLOAT)
    if weight.midrise:
        steps = graph.node("Add", [steps, graph.number(0.5, numpy.float32)], f"{name}/steps")
    axis = graph.number([2], numpy.int64)
    scale = graph.once(("scale3", name), lambda: graph.node("Unsqueeze", [graph.scale(name), axis], f"{name}/scales"))
    return _shaped(graph, name, weight, graph.node("Mul", [steps, scale], f"{name}/scaled"), name)


def matrix(graph: RealGraph, name: str) -> str:
    """The integers of a matrix with the outputs last, int8."""
    return graph.once(("matrix", name), lambda: _matrix(graph, name, graph.program.weights[name]))


def _matrix(graph: RealGraph, name: str, weight: RealWeight) -> str:
    codes = _kernel_codes(graph, name, weight)
    flat = graph.node("Reshape", [codes, graph.number(list(weight.codes.shape), numpy.int64)], f"{name}/flat")
    return graph.node("Transpose", [flat], f"{name}/matrix", perm=[1, 0])


def kernel(graph: RealGraph, name: str) -> str:
    """The integers of a weight counted from `OFFSET`, uint8 in its own shape.

    ConvInteger (ONNX Runtime 1.32) takes four times as long with int8 weights: 0.37 ms and 0.08 for 16 channels to 16,
    3 x 3, of 32 x 32 pixels.
    """
    return graph.once(("kernel", name), lambda: _kernel(graph, name, graph.program.weights[name]))


def _kernel(graph: RealGraph, name: str, weight: RealWeight) -> str:
    wide = graph.node(
        "Add", [_wide_integers(graph, name, weight), graph.number(OFFSET, numpy.int32)], f"{name}/counted"
    )
    codes = graph.node("Cast", [wide], f"{name}/uint8", to=TensorProto.UINT8)
    return _shaped(graph, name, weight, codes, f"{name}/integers")


def _kernel_codes(graph: RealGraph, name: str, weight: RealWeight) -> str:
    if not weight.midrise:
        return graph.codes(name, TensorProto.INT8)
    return graph.node("Cast", [_wide_integers(graph, name, weight)], f"{name}/half_steps", to=TensorProto.INT8)


def _wide_integers(graph: RealGraph, name: str, weight: RealWeight) -> str:
    """The integers of a weight, int32 (C, groups, group_size)."""
    wide = graph.codes(name, TensorProto.INT32)
    if not weight.midrise:
        return wide

    def make() -> str:
        doubled = graph.node("Add", [wide, wide], f"{name}/doubled")
        return graph.node("Add", [doubled, graph.number(1, numpy.int32)], f"{name}/odd")

    return graph.once(("odd", name), make)


def _shaped(graph: RealGraph, name: str, weight: RealWeight, grouped: str, target: str) -> str:
    """(C, groups, group_size) as the tensor that the weight is."""
    moved = [weight.shape[weight.axis], *(s for dim, s in enumerate(weight.shape) if dim != weight.axis)]
    _, groups, size = padded_groups(weight).shape
    if groups * size != weight.codes.shape[1]:
        flat = graph.node("Reshape", [grouped, graph.number([0, groups * size], numpy.int64)], f"{target}/filled")
        ends = [graph.number([number], numpy.int64) for number in (0, weight.codes.shape[1], 1)]
        grouped = graph.node("Slice", [flat, *ends], f"{target}/cut")
    last = weight.axis == 0
    shaped = graph.node(
        "Reshape", [grouped, graph.number(moved, numpy.int64)], target if last else f"{target}/channels_first"
    )
    if last:
        return shaped
    order = list(range(1, len(moved)))
    order.insert(weight.axis, 0)
    return graph.node("Transpose", [shaped], target, perm=order)


def packed(graph: RealGraph, name: str) -> str:
    """Codes counted from 0 as MatMulNBits takes them: uint8 (C, groups, group_size * bits / 8), lowest bits first."""
    return graph.once(("packed", name), lambda: _packed(graph, name, graph.program.weights[name]))


def _packed(graph: RealGraph, name: str, weight: RealWeight) -> str:
    width = CONTAINERS[weight.bits]
    channels, count = weight.codes.shape
    groups = weight.scale.shape[1]
    filled = numpy.zeros((channels, groups * weight.group_size), numpy.int8)
    filled[:, :count] = weight.codes.numpy()
    offset = 2 ** (width - 1)
    counted = (filled.astype(numpy.int16) + offset).astype(numpy.uint8).view(numpy.int8)
    content = pack(torch.from_numpy(counted), width).numpy()
    return graph.constant(f"{name}/packed", content.reshape(channels, groups, -1), numpy.uint8)


def half_scale(graph: RealGraph, name: str) -> str:
    """Half of the scales of a weight, float32 (C, groups)."""
    return graph.once(("half", name), lambda: graph.node(
        "Mul", [graph.scale(name), graph.number(0.5, numpy.float32)], f"{name}/half_scale"
    ))  # fmt: skip


def channel_scale(graph: RealGraph, name: str, spatial: int) -> str:
    """Scales of the integers for each output channel, to multiply with: (C, 1, ...)."""

    def make() -> str:
        scale = half_scale(graph, name) if graph.program.weights[name].midrise else graph.scale(name)
        shape = graph.number([-1, *[1] * spatial], numpy.int64)
        return graph.node("Reshape", [scale, shape], f"{name}/channel_scale")

    return graph.once(("channel scale", name), make)
