"""The functions that a float island may hold, as float nodes, one form per function."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy
from onnx import TensorProto

from qat.emitters.onnxruntime.float_nodes import FloatNodes
from qat.emitters.onnxruntime.graph import array_of
from qat.integer.float_functions import FLOAT32_EPSILON
from qat.integer.geometry import per_dimension
from qat.integer.operations import FloatIsland

#: What masked scores are before a float softmax; twice as much is still finite.
_MASKED = -1e38
_LOWEST = numpy.finfo(numpy.float32).min


@dataclass
class _Form:
    """Adds the nodes of one island. operands: the name of each operand's tensor, by what the function calls it."""

    nodes: FloatNodes
    operands: dict[str, str] = field(default_factory=dict)
    count: int = 0

    @property
    def operation(self) -> FloatIsland:
        return self.nodes.operation

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of an operand as the function sees it; the first size of a value is no size of anything."""
        if name in self.operation.constants:
            return tuple(self.operation.constants[name].shape)
        source = self.operation.inputs[self.operation.operands.index(name)]
        return self.operation.seen(tuple(self.nodes.value(source).shape))

    def argument(self, name: str, default=None):
        """An argument of the function."""
        return self.operation.settings.get(name, default)

    def add(self, kind: str, *inputs: str, **attributes) -> str:
        """A node; returns the name of its result."""
        self.count += 1
        return self.nodes.step(f"step{self.count}", kind, list(inputs), **attributes)

    def number(self, value, dtype=numpy.float32) -> str:
        """A constant; returns its name."""
        self.count += 1
        return self.nodes.constant(f"step{self.count}", value, dtype)

    def whole(self, *values: int) -> str:
        """Whole numbers as a constant."""
        return self.number(values, numpy.int64)

    def dims(self) -> tuple[int, ...]:
        """The argument `dim`, of one dimension or several."""
        return per_dimension(self.argument("dim"), 1)


def write(nodes: FloatNodes) -> None:
    """The nodes of a `FloatIsland`, from its real operands to its real result, in which NaN is 0.

    Behind them stands a `Max` that changes nothing: between a DequantizeLinear and a QuantizeLinear the runtime (1.32)
    would compute many a function with integers, and quantize the weights of a convolution.
    """
    form, operation = _Form(nodes), nodes.operation
    for name, source, value in zip(operation.operands, nodes.sources, operation.inputs, strict=True):
        form.operands[name] = source
        if operation.merged:
            form.operands[name] = form.add("Reshape", source, form.whole(-1, *nodes.value(value).shape[1:]))
    for name, values in operation.constants.items():
        form.operands[name] = form.number(array_of(values))
    result = FUNCTION_FORMS[operation.function](form)
    if operation.definition.may_be_nan:
        result = form.add("Where", form.add("IsNaN", result), form.number(0.0), result)
    lowest = form.number(_LOWEST)
    if operation.merged:
        shape = nodes.value(operation.output).shape
        nodes.add("Reshape", [form.add("Max", result, lowest), form.whole(-1, *shape)])
    else:
        nodes.add("Max", [result, lowest])


def _plain(kind: str, **attributes) -> Callable[[_Form], str]:
    """One node, of all operands in the order of the function."""

    def write(form: _Form) -> str:
        names = [form.operands[name] for name in form.operation.definition.tensors if name in form.operands]
        return form.add(kind, *names, **attributes)

    return write


def _matmul(form: _Form) -> str:
    """Behind a `Max` that changes nothing: of two DequantizeLinear the runtime would make a product of integers."""
    first, second = _both(form)
    return form.add("MatMul", form.add("Max", first, form.number(_LOWEST)), second)


def _biased(form: _Form, product: str) -> str:
    return form.add("Add", product, form.operands["bias"]) if "bias" in form.operands else product


def _linear(form: _Form) -> str:
    weight = form.number(array_of(form.operation.constants["weight"].T))
    return _biased(form, form.add("MatMul", form.operands["input"], weight))


def _bilinear(form: _Form) -> str:
    operands = (form.operands[name] for name in ("input1", "weight", "input2"))
    return _biased(form, form.add("Einsum", *operands, equation="...i,oij,...j->...o"))


def _window(form: _Form, count: int) -> dict:
    """Attributes that a convolution and its transpose have in common."""
    kernel = form.shape("weight")[2:]
    dilation, padding = per_dimension(form.argument("dilation", 1), count), form.argument("padding", 0)
    before, after = ([0] * count, [0] * count) if padding == "valid" else ([*per_dimension(padding, count)],) * 2
    if padding == "same":
        totals = [(size - 1) * step for size, step in zip(kernel, dilation, strict=True)]
        before, after = [total // 2 for total in totals], [total - total // 2 for total in totals]
    return {
        "kernel_shape": kernel, "strides": per_dimension(form.argument("stride", 1), count), "pads": [*before, *after],
        "dilations": dilation, "group": form.argument("groups", 1),
    }  # fmt: skip


def _convolution(count: int, transposed: bool) -> Callable[[_Form], str]:
    def write(form: _Form) -> str:
        attributes = _window(form, count)
        if transposed:
            attributes["output_padding"] = per_dimension(form.argument("output_padding", 0), count)
        return _plain("ConvTranspose" if transposed else "Conv", **attributes)(form)

    return write


def _gained(form: _Form, normal: str, spatial: int = 0) -> str:
    """Times the weight and plus the bias, of the last dimensions or, with `spatial` behind them, of the channels."""
    for kind, name in (("Mul", "weight"), ("Add", "bias")):
        if name in form.operands:
            constant = array_of(form.operation.constants[name])
            normal = form.add(kind, normal, form.number(constant.reshape(*constant.shape, *[1] * spatial)))
    return normal


def _layer_norm(form: _Form) -> str:
    normalized = form.argument("normalized_shape")
    ones = form.number(numpy.ones(normalized))
    normal = form.add(
        "LayerNormalization", form.operands["input"], ones, axis=-len(normalized), epsilon=form.argument("eps", 1e-5)
    )
    return _gained(form, normal)


def _rms_norm(form: _Form) -> str:
    source = form.operands["input"]
    axes = form.whole(*range(-len(form.argument("normalized_shape")), 0))
    mean = form.add("ReduceMean", form.add("Mul", source, source), axes, keepdims=1)
    epsilon = form.number(form.argument("eps", FLOAT32_EPSILON))
    root = form.add("Sqrt", form.add("Add", mean, epsilon))
    return _gained(form, form.add("Div", source, root))


def _instances(form: _Form, source: str, channels: int) -> str:
    """Each channel of each sample less its mean, over its standard deviation."""
    ones, zeros = form.number(numpy.ones(channels)), form.number(numpy.zeros(channels))
    return form.add("InstanceNormalization", source, ones, zeros, epsilon=form.argument("eps", 1e-5))


def _group_norm(form: _Form) -> str:
    source, groups = form.operands["input"], form.argument("num_groups")
    viewed = form.add("Reshape", source, form.whole(0, groups, -1))
    normal = form.add("Reshape", _instances(form, viewed, groups), form.add("Shape", source))
    return _gained(form, normal, len(form.shape("input")) - 2)


def _instance_norm(form: _Form) -> str:
    shape = form.shape("input")
    return _gained(form, _instances(form, form.operands["input"], shape[1]), len(shape) - 2)


def _batch_norm(form: _Form) -> str:
    channels = form.shape("running_mean")
    gain = form.operands.get("weight") or form.number(numpy.ones(channels))
    shift = form.operands.get("bias") or form.number(numpy.zeros(channels))
    statistics = form.operands["running_mean"], form.operands["running_var"]
    source, epsilon = form.operands["input"], form.argument("eps", 1e-5)
    return form.add("BatchNormalization", source, gain, shift, *statistics, epsilon=epsilon)


def _softmax(form: _Form) -> str:
    scores, mask, axis = form.operands["input"], form.operands.get("mask"), form.argument("dim")
    if mask is None:
        return form.add("Softmax", scores, axis=axis)
    taken = form.add("Cast", mask, to=TensorProto.BOOL)
    scores = form.add("Where", taken, scores, form.number(_MASKED))
    return form.add("Mul", form.add("Softmax", scores, axis=axis), mask)  # a row of which nothing takes part is 0


def _clip(low: float | None = None, high: float | None = None, names: tuple[str, str] | None = None):
    """A clamp between two numbers, or between the arguments of these names."""

    def write(form: _Form) -> str:
        ends = (low, high) if names is None else (form.argument(names[0], low), form.argument(names[1], high))
        limits = ["" if end is None else form.number(end) for end in ends]
        return form.add("Clip", form.operands["input"], *limits)

    return write


def _with_alpha(kind: str, name: str, default: float) -> Callable[[_Form], str]:
    return lambda form: form.add(kind, form.operands["input"], alpha=form.argument(name, default))


_hard_sigmoid = _plain("HardSigmoid", alpha=1 / 6, beta=0.5)


def _mish(form: _Form) -> str:
    """As the runtime itself takes it apart, but with names that tell whose nodes they are."""
    source = form.operands["input"]
    return form.add("Mul", source, form.add("Tanh", form.add("Softplus", source)))


def _root_of_square(form: _Form) -> str:
    return form.add("Reciprocal", form.add("Sqrt", form.operands["input"]))


def _both(form: _Form) -> tuple[str, str]:
    return form.operands["input"], form.operands["other"]


def _hypot(form: _Form) -> str:
    squares = (form.add("Mul", operand, operand) for operand in _both(form))
    return form.add("Sqrt", form.add("Add", *squares))


def _logaddexp(form: _Form) -> str:
    first, second = _both(form)
    distance = form.add("Neg", form.add("Abs", form.add("Sub", first, second)))
    rest = form.add("Log", form.add("Add", form.add("Exp", distance), form.number(1.0)))
    return form.add("Add", form.add("Max", first, second), rest)


def _atan2(form: _Form) -> str:
    """The arc tangent of the quotient, half a turn further where the second operand is negative; 0 of two zeros."""
    y, x = _both(form)
    zero, pi = form.number(0.0), numpy.float32(numpy.pi)
    angle = form.add("Atan", form.add("Div", y, x))
    turn = form.add("Where", form.add("Less", y, zero), form.number(-pi), form.number(pi))
    turned = form.add("Where", form.add("Less", x, zero), turn, zero)
    none = form.add("And", form.add("Equal", y, zero), form.add("Equal", x, zero))
    return form.add("Where", none, zero, form.add("Add", angle, turned))


def _xlogy(form: _Form) -> str:
    first, second = _both(form)
    zero = form.number(0.0)
    product = form.add("Mul", first, form.add("Log", second))
    is_number = form.add("Not", form.add("IsNaN", second))
    none = form.add("And", form.add("Equal", first, zero), is_number)
    return form.add("Where", none, zero, product)


def _reduction(kind: str) -> Callable[[_Form], str]:
    def write(form: _Form) -> str:
        keep = int(form.argument("keepdim", False))
        return form.add(kind, form.operands["input"], form.whole(*form.dims()), keepdims=keep)

    return write


def _norm_over(form: _Form, source: str, order: float, axes: tuple[int, ...], keep: int) -> str:
    dims = form.whole(*axes)
    if order in (1.0, 2.0):
        return form.add("ReduceL1" if order == 1.0 else "ReduceL2", source, dims, keepdims=keep)
    powers = form.add("Pow", form.add("Abs", source), form.number(order))
    return form.add("Pow", form.add("ReduceSum", powers, dims, keepdims=keep), form.number(1 / order))


def _norm(form: _Form) -> str:
    keep = int(form.argument("keepdim", False))
    return _norm_over(form, form.operands["input"], form.argument("ord", 2.0), form.dims(), keep)


def _matrix_norm(form: _Form) -> str:
    keep = int(form.argument("keepdim", False))
    return form.add("ReduceL2", form.operands["input"], form.whole(*form.argument("dim", (-2, -1))), keepdims=keep)


def _cdist(form: _Form) -> str:
    first = form.add("Unsqueeze", form.operands["x1"], form.whole(-2))
    second = form.add("Unsqueeze", form.operands["x2"], form.whole(-3))
    return _norm_over(form, form.add("Sub", first, second), form.argument("p", 2.0), (-1,), 0)


def _cross(form: _Form) -> str:
    axis = form.argument("dim", -1)
    turned = [
        [form.add("Gather", operand, form.whole(*order), axis=axis) for order in ((1, 2, 0), (2, 0, 1))]
        for operand in _both(form)
    ]
    (first_next, first_last), (second_next, second_last) = turned
    return form.add("Sub", form.add("Mul", first_next, second_last), form.add("Mul", first_last, second_next))


def _vecdot(form: _Form) -> str:
    product = form.add("Mul", form.operands["x"], form.operands["y"])
    return form.add("ReduceSum", product, form.whole(form.argument("dim", -1)), keepdims=0)


def _fold(form: _Form) -> str:
    image, block = (form.whole(*per_dimension(form.argument(name), 2)) for name in ("output_size", "kernel_size"))
    padding = per_dimension(form.argument("padding", 0), 2)
    return form.add(
        "Col2Im", form.operands["input"], image, block, dilations=per_dimension(form.argument("dilation", 1), 2),
        pads=[*padding, *padding], strides=per_dimension(form.argument("stride", 1), 2),
    )  # fmt: skip


def _grid_sample(form: _Form) -> str:
    mode = {"bilinear": "linear", "bicubic": "cubic"}[form.argument("mode", "bilinear")]
    return form.add(
        "GridSample", form.operands["input"], form.operands["grid"], mode=mode,
        padding_mode=form.argument("padding_mode", "zeros"), align_corners=int(form.argument("align_corners", False)),
    )  # fmt: skip


#: What adds the nodes of each of `qat.integer.float_functions.FLOAT_FUNCTIONS`; returns the name of the result.
FUNCTION_FORMS: dict[str, Callable[[_Form], str]] = {
    "linear": _linear,
    **{f"conv{count}d": _convolution(count, transposed=False) for count in (1, 2, 3)},
    **{f"conv_transpose{count}d": _convolution(count, transposed=True) for count in (1, 2, 3)},
    "bilinear": _bilinear,
    **dict.fromkeys(("matmul", "bmm", "mm"), _matmul),
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "group_norm": _group_norm,
    "instance_norm": _instance_norm,
    "batch_norm": _batch_norm,
    "softmax": _softmax,
    "log_softmax": lambda form: form.add("LogSoftmax", form.operands["input"], axis=form.argument("dim")),
    **{
        name: _plain(kind) for name, kind in {
            "relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh", "exp": "Exp", "abs": "Abs", "neg": "Neg",
            "sin": "Sin", "cos": "Cos", "erf": "Erf",
            "reciprocal": "Reciprocal", "log": "Log", "sqrt": "Sqrt", "softplus": "Softplus",
            "add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "pow": "Pow", "det": "Det", "linalg_det": "Det",
        }.items()
    },
    "hardsigmoid": _hard_sigmoid,
    "relu6": _clip(0.0, 6.0),
    "hardtanh": _clip(-1.0, 1.0, ("min_val", "max_val")),
    "clamp": _clip(names=("min", "max")),
    "silu": lambda form: form.add("Mul", form.operands["input"], form.add("Sigmoid", form.operands["input"])),
    "mish": _mish,
    "hardswish": lambda form: form.add("Mul", form.operands["input"], _hard_sigmoid(form)),
    "square": lambda form: form.add("Mul", form.operands["input"], form.operands["input"]),
    "rsqrt": _root_of_square,
    "gelu": lambda form: form.add("Gelu", form.operands["input"], approximate=form.argument("approximate", "none")),
    "elu": _with_alpha("Elu", "alpha", 1.0),
    "leaky_relu": _with_alpha("LeakyRelu", "negative_slope", 0.01),
    "rsub": lambda form: form.add("Sub", *reversed(_both(form))),
    "hypot": _hypot,
    "logaddexp": _logaddexp,
    "atan2": _atan2,
    "xlogy": _xlogy,
    "cumsum": lambda form: form.add("CumSum", form.operands["input"], form.number(form.argument("dim"), numpy.int64)),
    "prod": _reduction("ReduceProd"),
    "sum": _reduction("ReduceSum"),
    "mean": _reduction("ReduceMean"),
    "logsumexp": _reduction("ReduceLogSumExp"),
    **dict.fromkeys(("norm", "linalg_vector_norm"), _norm),
    "linalg_matrix_norm": _matrix_norm,
    "cdist": _cdist,
    **dict.fromkeys(("cross", "linalg_cross"), _cross),
    "linalg_vecdot": _vecdot,
    "fold": _fold,
    "grid_sample": _grid_sample,
}  # fmt: skip
