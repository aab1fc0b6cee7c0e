"""Layers with weights in three forms: codes of tokens times codes of weights, groups of few bits, and plain numbers."""

import numpy
from onnx import TensorProto

from qat.emitters.onnxruntime.real import weights
from qat.emitters.onnxruntime.real.form import Form
from qat.emitters.onnxruntime.real.graph import padded_groups
from qat.emitters.onnxruntime.real.weights import OFFSET
from qat.functional import SCALE_FLOOR
from qat.real.nodes import Ref
from qat.real.weights import RealWeight
from qat.tokens import TOKEN_MAX

#: The kernel rounds activations to 8 bits for each group, and multiplies integers. The levels below compute in float32
#: and take 2 to 30 times as long (512 x 256 weights in groups of 32, one row, ONNX Runtime 1.32: 0.010 ms at level 4;
#: at level 0 0.021 for 4 bits, 0.30 for 2 and 0.19 for 8).
ACCURACY_LEVEL = 4
#: 1.5 * 2^23: beside it float32 holds whole numbers alone, so a sum is rounded half to even, exactly as a Round node
#: does in ten times the time.
_ROUNDING = 12582912.0


def linear(form: Form) -> str:
    """A linear layer."""
    name, weight = _weight_of(form)
    if form.node.tokens:
        codes, scale = tokens(form)
        inputs = [codes, weights.matrix(form.graph, name), _zero(form)]
        sums = form.graph.node("MatMulInteger", inputs, f"{form.node.name}/sums")
        return _biased(form, _scaled(form, sums, scale, weights.channel_scale(form.graph, name, 0)), 0)
    if weight is not None and weights.takes_groups(weight):
        return _biased(form, _in_groups(form, name, weight), 0)
    turned = form.graph.once(
        ("turned", name), lambda: form.graph.node("Transpose", [form.named(name)], f"{name}/turned", perm=[1, 0])
    )
    return _biased(form, form.add("MatMul", form.operand("input"), turned), 0)


def convolution(form: Form) -> str:
    """A convolution or a transposed one, of 1 to 3 spatial dimensions."""
    name, spatial = form.node.weight, form.rank - 2
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
        inputs = [codes, weights.kernel(form.graph, name), _zero(form), _zero(form)]
        sums = form.graph.node("ConvInteger", inputs, f"{form.node.name}/sums", **attributes)
        return _biased(form, _scaled(form, sums, scale, weights.channel_scale(form.graph, name, spatial)), spatial)
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


def _in_groups(form: Form, name: str, weight: RealWeight) -> str:
    """MatMulNBits; levels at odd half steps are codes and half a step, which every input of a group adds once more."""
    graph, source = form.graph, form.operand("input")
    width, (channels, inputs) = weights.CONTAINERS[weight.bits], weight.shape
    product = graph.node(
        "MatMulNBits", [source, weights.packed(graph, name), graph.scale(name)], f"{form.node.name}/product",
        "com.microsoft", K=inputs, N=channels, bits=width, block_size=weight.group_size, accuracy_level=ACCURACY_LEVEL,
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
    half = weights.half_scale(graph, name)
    turned = graph.once(("turned half", name), lambda: graph.node("Transpose", [half], f"{name}/half", perm=[1, 0]))
    return form.add("Add", product, form.add("MatMul", totals, turned))


def _weight_of(form: Form) -> tuple[str, RealWeight | None]:
    name = form.node.weight
    return name, form.graph.program.weights.get(name)


def _zero(form: Form) -> str:
    return form.graph.number(OFFSET, numpy.uint8)


def _scaled(form: Form, sums: str, token_scale: str, channel_scale: str) -> str:
    real = form.add("Cast", sums, to=TensorProto.FLOAT)
    return form.add("Mul", form.add("Mul", real, token_scale), channel_scale)


def _biased(form: Form, product: str, spatial: int) -> str:
    bias = form.argument("bias")
    if not isinstance(bias, Ref):
        return product
    tensor, graph = form.tensor(bias), form.graph
    if spatial:
        shape = graph.number([-1, *[1] * spatial], numpy.int64)
        tensor = graph.once(
            ("channels", bias.name), lambda: graph.node("Reshape", [tensor, shape], f"{bias.name}/channels")
        )
    return form.add("Add", product, tensor)
