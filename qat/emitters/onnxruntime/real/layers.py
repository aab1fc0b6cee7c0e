"""Layers with weights in three forms: codes of tokens times codes of weights, groups of few bits, and plain numbers."""

import numpy
import torch
from onnx import TensorProto

from qat.emitters.onnxruntime.real.graph import Form, RealGraph, padded_groups
from qat.functional import SCALE_FLOOR
from qat.integer.packing import pack
from qat.real.nodes import Ref
from qat.real.weights import RealWeight
from qat.tokens import TOKEN_MAX

#: Group sizes that MatMulNBits takes, and the bits of its containers by the bits of codes.
BLOCKS = (16, 32, 64, 128, 256)
CONTAINERS = {2: 2, 3: 4, 4: 4, 5: 8, 6: 8, 7: 8, 8: 8}
#: The kernel rounds activations to 8 bits for each group, and multiplies integers. The levels below compute in float32
#: and take 2 to 30 times as long (512 x 256 weights in groups of 32, one row, ONNX Runtime 1.32: 0.010 ms at level 4;
#: at level 0 0.021 for 4 bits, 0.30 for 2 and 0.19 for 8).
ACCURACY_LEVEL = 4
#: Of int8 codes of tokens in the uint8 tensors of kernels.
OFFSET = 128
#: 1.5 * 2^23: beside it float32 holds whole numbers alone, so a sum is rounded half to even, exactly as a Round node
#: does in ten times the time.
_ROUNDING = 12582912.0


def linear(form: Form) -> str:
    """A linear layer."""
    name, weight = _weight_of(form)
    if form.node.tokens:
        codes, scale = tokens(form)
        kernel = form.graph.once(("matrix", name), lambda: _matrix(form.graph, name, weight))
        sums = form.graph.node("MatMulInteger", [codes, kernel, _zero(form)], f"{form.node.name}/sums")
        return _biased(form, _scaled(form, sums, scale, _channel_scale(form, name, weight, 0)), 0)
    if weight is not None and takes_groups(weight):
        return _biased(form, _in_groups(form, name, weight), 0)
    turned = form.graph.once(("turned", name), lambda: _turned(form.graph, form.named(name), name))
    return _biased(form, form.add("MatMul", form.operand("input"), turned), 0)


def convolution(form: Form) -> str:
    """A convolution or a transposed one, of 1 to 3 spatial dimensions."""
    name, weight = _weight_of(form)
    spatial = form.rank - 2
    padding = form.argument("padding")
    attributes = {
        "kernel_shape": list(form.shape("weight")[2:]),
        "strides": list(form.argument("stride")),
        "pads": [*padding, *padding],
        "dilations": list(form.argument("dilation")),
        "group": form.argument("groups"),
    }
    if form.node.tokens:
        codes, scale = tokens(form)
        kernel = form.graph.once(("kernel", name), lambda: _counted(form.graph, name, weight))
        inputs = [codes, kernel, _zero(form), _zero(form)]
        sums = form.graph.node("ConvInteger", inputs, f"{form.node.name}/sums", **attributes)
        scaled = _scaled(form, sums, scale, _channel_scale(form, name, weight, spatial))
        return _biased(form, scaled, spatial)
    if form.argument("transposed"):
        attributes["output_padding"] = list(form.argument("output_padding"))
    inputs = [form.operand("input"), form.named(name)]
    if form.argument("bias") is not None:
        inputs.append(form.operand("bias"))
    return form.add("ConvTranspose" if form.argument("transposed") else "Conv", *inputs, **attributes)


def embedding(form: Form) -> str:
    """Rows of a table; of codes they are scaled after they were taken."""
    name, weight = _weight_of(form)
    indices, graph = form.operand("indices"), form.graph
    if weight is None or weight.axis != 0:
        return form.add("Gather", form.named(name), indices, axis=0)
    codes = form.add("Gather", graph.codes(name, TensorProto.INT8), indices, axis=0)  # (..., groups, group_size)
    steps = form.add("Cast", codes, to=TensorProto.FLOAT)
    if weight.midrise:
        steps = form.add("Add", steps, form.number(0.5))
    scale = form.add("Gather", graph.scale(name), indices, axis=0)
    scaled = form.add("Mul", steps, form.add("Unsqueeze", scale, form.whole(-1)))
    keep = [0] * (form.rank - 1)
    width, groups = weight.codes.shape[1], padded_groups(weight).shape[1:]
    flat = form.add("Reshape", scaled, form.whole(*keep, groups[0] * groups[1]))
    if groups[0] * groups[1] == width:
        return flat
    return form.add("Slice", flat, form.whole(0), form.whole(width), form.whole(-1))


def tokens(form: Form) -> tuple[str, str]:
    """(codes, scale) of the tokens that a layer reads, as `qat.tokens` has them; uint8, counted from `OFFSET`.

    Made once for all layers that read the same tokens.
    """
    graph, source, dims = form.graph, form.operand("input"), form.node.tokens
    base = token_base(source, dims)

    def make() -> str:
        axes = graph.number(list(dims), numpy.int64)
        highest = graph.node("ReduceMax", [source, axes], f"{base}/highest", keepdims=1)
        lowest = graph.node("ReduceMin", [source, axes], f"{base}/lowest", keepdims=1)
        largest = graph.node("Max", [highest, graph.node("Neg", [lowest], f"{base}/depth")], f"{base}/largest")
        step = graph.node("Div", [largest, graph.number(float(TOKEN_MAX), numpy.float32)], f"{base}/step")
        scale = graph.node("Max", [step, graph.number(SCALE_FLOOR, numpy.float32)], f"{base}/scale")
        steps = graph.node("Div", [source, scale], f"{base}/steps")
        rounded = graph.node("Add", [steps, graph.number(_ROUNDING, numpy.float32)], f"{base}/rounded")
        counted = graph.node("Sub", [rounded, graph.number(_ROUNDING - OFFSET, numpy.float32)], f"{base}/counted")
        return graph.node("Cast", [counted], f"{base}/codes", to=TensorProto.UINT8)

    return graph.once(("tokens", source, dims), make), f"{base}/scale"


def token_base(source: str, dims: tuple[int, ...]) -> str:
    """How the names of the tensors with the tokens of `source` begin."""
    return f"{source}/tokens" if len(dims) == 1 else f"{source}/sample"


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


def _counted(graph: RealGraph, name: str, weight: RealWeight) -> str:
    """The integers of a weight counted from `OFFSET`, uint8 in its own shape.

    ConvInteger (ONNX Runtime 1.32) takes four times as long with int8 weights: 0.37 ms and 0.08 for 16 channels to 16,
    3 x 3, of 32 x 32 pixels.
    """
    wide = graph.node(
        "Add", [_wide_integers(graph, name, weight), graph.number(OFFSET, numpy.int32)], f"{name}/counted"
    )
    codes = graph.node("Cast", [wide], f"{name}/uint8", to=TensorProto.UINT8)
    return _shaped(graph, name, weight, codes, f"{name}/integers")


def _matrix(graph: RealGraph, name: str, weight: RealWeight) -> str:
    """The integers of a matrix with the outputs last, int8."""
    codes = _kernel_codes(graph, name, weight)
    flat = graph.node("Reshape", [codes, graph.number(list(weight.codes.shape), numpy.int64)], f"{name}/flat")
    return graph.node("Transpose", [flat], f"{name}/matrix", perm=[1, 0])


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


def _in_groups(form: Form, name: str, weight: RealWeight) -> str:
    """MatMulNBits; levels at odd half steps are codes and half a step, which every input of a group adds once more."""
    graph, source = form.graph, form.operand("input")
    width, (channels, inputs) = CONTAINERS[weight.bits], weight.shape
    packed = graph.once(("packed", name), lambda: _packed(graph, name, weight, width))
    product = graph.node(
        "MatMulNBits", [source, packed, graph.scale(name)], f"{form.node.name}/product", "com.microsoft",
        K=inputs, N=channels, bits=width, block_size=weight.group_size, accuracy_level=ACCURACY_LEVEL,
    )  # fmt: skip
    if not weight.midrise:
        return product
    groups = weight.scale.shape[1]
    missing = groups * weight.group_size - inputs
    if missing:
        amounts = form.whole(*[0] * (2 * form.rank - 1), missing)
        source = form.add("Pad", source, amounts)
    grouped = form.add("Reshape", source, form.whole(*[0] * (form.rank - 1), groups, weight.group_size))
    totals = form.add("ReduceSum", grouped, form.whole(-1), keepdims=0)
    half = graph.once(("half", name), lambda: graph.node(
        "Mul", [graph.scale(name), graph.number(0.5, numpy.float32)], f"{name}/half_scale"
    ))  # fmt: skip
    turned = graph.once(("turned half", name), lambda: graph.node("Transpose", [half], f"{name}/half", perm=[1, 0]))
    return form.add("Add", product, form.add("MatMul", totals, turned))


def _packed(graph: RealGraph, name: str, weight: RealWeight, width: int) -> str:
    """Codes counted from 0 as the kernel wants them: uint8 (C, groups, group_size * width / 8), lowest bits first."""
    channels, count = weight.codes.shape
    groups = weight.scale.shape[1]
    filled = numpy.zeros((channels, groups * weight.group_size), numpy.int8)
    filled[:, :count] = weight.codes.numpy()
    offset = 2 ** (width - 1)
    counted = (filled.astype(numpy.int16) + offset).astype(numpy.uint8).view(numpy.int8)
    packed = pack(torch.from_numpy(counted), width).numpy()
    return graph.constant(f"{name}/packed", packed.reshape(channels, groups, -1), numpy.uint8)


def _weight_of(form: Form) -> tuple[str, RealWeight | None]:
    name = form.node.named["weight"].name
    return name, form.graph.program.weights.get(name)


def _zero(form: Form) -> str:
    return form.graph.number(OFFSET, numpy.uint8)


def _channel_scale(form: Form, name: str, weight: RealWeight, spatial: int) -> str:
    """Scales of the integers for each output channel, to multiply with: (C, 1, ...)."""
    graph = form.graph

    def make() -> str:
        scale = graph.scale(name)
        if weight.midrise:
            scale = graph.node("Mul", [scale, graph.number(0.5, numpy.float32)], f"{name}/half_scale")
        shape = graph.number([-1, *[1] * spatial], numpy.int64)
        return graph.node("Reshape", [scale, shape], f"{name}/channel_scale")

    return graph.once(("channel scale", name), make)


def _scaled(form: Form, sums: str, token_scale: str, channel_scale: str) -> str:
    real = form.add("Cast", sums, to=TensorProto.FLOAT)
    return form.add("Mul", form.add("Mul", real, token_scale), channel_scale)


def _biased(form: Form, product: str, spatial: int) -> str:
    bias = form.argument("bias")
    if not isinstance(bias, Ref):
        return product
    tensor = form.tensor(bias)
    if spatial:
        shape = form.graph.number([-1, *[1] * spatial], numpy.int64)
        graph = form.graph
        tensor = graph.once(
            ("channels", bias.name), lambda: graph.node("Reshape", [tensor, shape], f"{bias.name}/channels")
        )
    return form.add("Add", product, tensor)


def _turned(graph: RealGraph, tensor: str, name: str) -> str:
    return graph.node("Transpose", [tensor], f"{name}/turned", perm=[1, 0])
