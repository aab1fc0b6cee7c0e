"""The functions of real programs as ONNX nodes, one form for each; a form returns the name of its result."""

import math
from collections.abc import Callable

import numpy
from onnx import helper

from qat.emitters.onnxruntime.real import layers
from qat.emitters.onnxruntime.real.graph import NUMPY, TYPES, Form
from qat.integer.geometry import per_dimension
from qat.real.nodes import Ref

Write = Callable[[Form], str]


def _unary(kind: str, **attributes) -> Write:
    return lambda form: form.add(kind, form.operand(), **attributes)


def _binary(kind: str, *names: str) -> Write:
    """Both operands in the type of the result."""
    first, second = names or ("self", "other")
    return lambda form: form.add(kind, form.operand(first, form.node.dtype), form.operand(second, form.node.dtype))


def _added(kind: str, reverse: bool = False) -> Write:
    """A sum or difference whose second operand is multiplied by `alpha`."""

    def write(form: Form) -> str:
        first, second = form.operand("self", form.node.dtype), form.operand("other", form.node.dtype)
        alpha = form.argument("alpha", 1)
        if alpha != 1:
            second = form.add("Mul", second, form.number(alpha, NUMPY[form.node.dtype]))
        return form.add(kind, *((second, first) if reverse else (first, second)))

    return write


def _reversed_difference(form: Form) -> str:
    first = form.operand("self", form.node.dtype)
    if form.argument("alpha", 1) != 1:
        first = form.add("Mul", first, form.number(form.argument("alpha"), NUMPY[form.node.dtype]))
    return form.add("Sub", form.operand("other", form.node.dtype), first)


def _compared(kind: str, negated: bool = False) -> Write:
    """Real numbers where one operand is real, as torch compares them."""

    def write(form: Form) -> str:
        types = [form.dtype(form.node.named[name]) for name in ("self", "other")]
        shared = "float32" if "float32" in types else "int64"
        if types == ["bool", "bool"] and kind == "Equal":
            shared = "bool"
        result = form.add(kind, form.operand("self", shared), form.operand("other", shared))
        return form.add("Not", result) if negated else result

    return write


def _logical(kind: str) -> Write:
    return lambda form: form.add(kind, form.operand("self", "bool"), form.operand("other", "bool"))


def _bitwise(logical: str, kind: str) -> Write:
    def write(form: Form) -> str:
        if form.node.dtype == "bool":
            return _logical(logical)(form)
        return _binary(kind)(form)

    return write


def _bitwise_not(form: Form) -> str:
    return form.add("Not" if form.node.dtype == "bool" else "BitwiseNot", form.operand())


def _remainder(form: Form) -> str:
    dtype = form.node.dtype
    first, second = form.operand("self", dtype), form.operand("other", dtype)
    if dtype == "float32":  # of which the sign is that of the divisor
        return form.add("Sub", first, form.add("Mul", second, form.add("Floor", form.add("Div", first, second))))
    return form.add("Mod", first, second)


def _rounded_quotient(form: Form) -> str:
    mode = form.argument("rounding_mode")
    if mode == "floor":
        return _floor_divide(form)
    if mode is not None:
        raise form.refuse(f"rounds a quotient by {mode!r}; use rounding_mode='floor'")
    return _binary("Div")(form)


def _floor_divide(form: Form) -> str:
    dtype = form.node.dtype
    first, second = form.operand("self", dtype), form.operand("other", dtype)
    if dtype == "float32":
        return form.add("Floor", form.add("Div", first, second))
    return form.add("Div", form.add("Sub", first, form.add("Mod", first, second)), second)


def _clip(low: str, high: str) -> Write:
    def write(form: Form) -> str:
        dtype = NUMPY[form.node.dtype]
        ends = [form.argument(name) for name in (low, high)]
        limits = ["" if end is None else form.number(end, dtype) for end in ends]
        return form.add("Clip", form.operand(), *limits)

    return write


def _elu(form: Form) -> str:
    if (form.argument("scale", 1), form.argument("input_scale", 1)) != (1, 1):
        raise form.refuse("scales its parts; use an ELU with scale and input_scale of 1")
    return form.add("Elu", form.operand(), alpha=float(form.argument("alpha", 1)))


def _softplus(form: Form) -> str:
    if (form.argument("beta", 1), form.argument("threshold", 20)) != (1, 20):
        raise form.refuse("has another beta or threshold than 1 and 20; use these")
    return form.add("Softplus", form.operand())


def _silu(form: Form) -> str:
    source = form.operand()
    return form.add("Mul", source, form.add("Sigmoid", source))


def _mish(form: Form) -> str:
    source = form.operand()
    return form.add("Mul", source, form.add("Tanh", form.add("Softplus", source)))


def _hard_sigmoid(form: Form) -> str:
    return form.add("HardSigmoid", form.operand(), alpha=1 / 6, beta=0.5)


def _matmul(form: Form) -> str:
    second = "other" if "other" in form.node.named else "mat2"
    return form.add("MatMul", form.operand("self"), form.operand(second))


# --- norms and reductions -------------------------------------------------------------------------------------------


def _gained(form: Form, normal: str, spatial: int = 0) -> str:
    """Times the weight and plus the bias, of the last dimensions or, with `spatial` behind them, of the channels."""
    for kind, name in (("Mul", "weight"), ("Add", "bias")):
        if isinstance(form.argument(name), Ref):
            tensor = form.operand(name)
            if spatial:
                tensor = form.add("Reshape", tensor, form.whole(-1, *[1] * spatial))
            normal = form.add(kind, normal, tensor)
    return normal


def _layer_norm(form: Form) -> str:
    shape = form.argument("normalized_shape")
    operands = [form.operand("input")]
    has_weight = isinstance(form.argument("weight"), Ref)
    operands.append(form.operand("weight") if has_weight else form.number(numpy.ones(shape, numpy.float32)))
    if isinstance(form.argument("bias"), Ref):
        operands.append(form.operand("bias"))
    return form.add("LayerNormalization", *operands, axis=-len(shape), epsilon=form.argument("eps"))


def _rms_norm(form: Form) -> str:
    source = form.operand("input")
    axes = form.whole(*range(-len(form.argument("normalized_shape")), 0))
    mean = form.add("ReduceMean", form.add("Mul", source, source), axes, keepdims=1)
    epsilon = form.argument("eps")
    epsilon = form.number(float(numpy.finfo(numpy.float32).eps) if epsilon is None else epsilon)
    return _gained(form, form.add("Div", source, form.add("Sqrt", form.add("Add", mean, epsilon))))


def _group_norm(form: Form) -> str:
    source, groups = form.operand("input"), form.argument("num_groups")
    ones, zeros = form.number(numpy.ones(groups, numpy.float32)), form.number(numpy.zeros(groups, numpy.float32))
    viewed = form.add("Reshape", source, form.whole(0, groups, -1))
    normal = form.add("InstanceNormalization", viewed, ones, zeros, epsilon=form.argument("eps"))
    return _gained(form, form.add("Reshape", normal, form.add("Shape", source)), form.rank - 2)


def _softmax(kind: str) -> Write:
    return lambda form: form.add(kind, form.operand(), axis=form.argument("dim"))


def _axes(form: Form, name: str = "dim") -> list[str]:
    """The axes of a reduction as inputs of a node: none for all of them."""
    dims = form.argument(name)
    dims = () if dims is None else per_dimension(dims, 1)
    return [form.whole(*dims)] if dims else []


def _reduced(kind: str, of: str | None = None) -> Write:
    def write(form: Form) -> str:
        keep = int(form.argument("keepdim", False))
        return form.add(kind, form.operand("self", of or form.node.dtype), *_axes(form), keepdims=keep)

    return write


def _any(kind: str) -> Write:
    def write(form: Form) -> str:
        whole = form.add("Cast", form.operand("self", "bool"), to=TYPES["int32"])
        found = form.add(kind, whole, *_axes(form), keepdims=int(form.argument("keepdim", False)))
        return form.add("Cast", found, to=TYPES["bool"])

    return write


def _arg(kind: str) -> Write:
    def write(form: Form) -> str:
        if form.argument("dim") is None:
            raise form.refuse("finds a place among all dimensions; name one")
        return form.add(kind, form.operand(), axis=form.argument("dim"), keepdims=int(form.argument("keepdim", False)))

    return write


def _extreme(reduce: str, arg: str) -> Write:
    """max or min along a dimension: the values, or their places."""

    def write(form: Form) -> str:
        keep = int(form.argument("keepdim", False))
        if form.node.part:
            return form.add(arg, form.operand(), axis=form.argument("dim"), keepdims=keep)
        return form.add(reduce, form.operand(), *_axes(form), keepdims=keep)

    return write


def _cumsum(form: Form) -> str:
    return form.add("CumSum", form.operand("self", form.node.dtype), form.number(form.argument("dim"), numpy.int64))


def _variance(form: Form) -> str:
    source, axes = form.operand(), _axes(form)
    shape = form.shape()
    dims = form.argument("dim")
    dims = range(len(shape)) if dims is None else per_dimension(dims, 1)
    sizes = [shape[dim] for dim in dims]
    if not all(isinstance(size, int) for size in sizes):
        raise form.refuse("is a variance over a size that follows the inputs; use mean and square")
    correction = form.argument("correction")
    count = math.prod(sizes)
    factor = count / (count - (1 if correction is None else correction))
    centred = form.add("Sub", source, form.add("ReduceMean", source, *axes, keepdims=1))
    keep = int(form.argument("keepdim", False))
    mean = form.add("ReduceMean", form.add("Mul", centred, centred), *axes, keepdims=keep)
    return form.add("Mul", mean, form.number(factor))


def _norm(form: Form) -> str:
    order = float(form.argument("ord", 2))
    if order not in (1.0, 2.0):
        raise form.refuse(f"is a norm of order {order}; use 1 or 2")
    keep = int(form.argument("keepdim", False))
    return form.add("ReduceL1" if order == 1.0 else "ReduceL2", form.operand(), *_axes(form), keepdims=keep)


# --- windows --------------------------------------------------------------------------------------------------------


def _pooled(form: Form, kind: str, count: int, **attributes) -> str:
    kernel = per_dimension(form.argument("kernel_size"), count)
    stride = per_dimension(form.argument("stride") or kernel, count)
    padding = per_dimension(form.argument("padding", 0), count)
    return form.add(
        kind, form.operand(), kernel_shape=kernel, strides=stride, pads=[*padding, *padding],
        ceil_mode=int(form.argument("ceil_mode", False)), **attributes,
    )  # fmt: skip


def _max_pool(form: Form) -> str:
    if form.node.part:
        raise form.refuse("tells where maxima are; take the values alone")
    return _pooled(form, "MaxPool", 2, dilations=per_dimension(form.argument("dilation", 1), 2))


def _avg_pool(count: int) -> Write:
    def write(form: Form) -> str:
        if form.argument("divisor_override") is not None:
            raise form.refuse("divides by another number than the size of its window; multiply behind it")
        return _pooled(form, "AveragePool", count, count_include_pad=int(form.argument("count_include_pad", True)))

    return write


def _adaptive_avg_pool(form: Form) -> str:
    wanted = form.argument("output_size")
    sizes = form.shape()[-len(wanted) :]
    if all(goal == 1 for goal in wanted):
        return form.add("ReduceMean", form.operand(), form.whole(*range(-len(wanted), 0)), keepdims=1)
    if not all(isinstance(size, int) and size % goal == 0 for size, goal in zip(sizes, wanted, strict=True)):
        raise form.refuse(f"pools {sizes} to {wanted} with windows of several sizes; use one that divides")
    kernel = [size // goal for size, goal in zip(sizes, wanted, strict=True)]
    return form.add("AveragePool", form.operand(), kernel_shape=kernel, strides=kernel)


def _resized(mode: str) -> Write:
    def write(form: Form) -> str:
        factors = form.argument("scale_factors")
        if factors is None:
            before, after = form.shape("input")[2:], form.argument("output_size")
            if not all(isinstance(size, int) for size in (*before, *after)):
                raise form.refuse("resizes to a size that follows the inputs; give a scale_factor")
            factors = [goal / size for goal, size in zip(after, before, strict=True)]
        scales = form.number([1.0, 1.0, *factors])
        if mode == "nearest":
            settings = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        else:
            corners = form.argument("align_corners")
            settings = {"coordinate_transformation_mode": "align_corners" if corners else "half_pixel"}
        return form.add("Resize", form.operand("input"), "", scales, mode=mode, **settings)

    return write


# --- moves ----------------------------------------------------------------------------------------------------------


def _reshape(form: Form) -> str:
    return form.add("Reshape", form.operand("input"), form.sizes(form.argument("sizes")))


def _expand(form: Form) -> str:
    sizes = [1 if size == -1 else size for size in form.argument("sizes")]
    return form.add("Expand", form.operand("input"), form.sizes(sizes))


def _end(form: Form, value, default: int) -> str:
    return form.sizes([default if value is None else value])


def _slice(form: Form) -> str:
    start, end = _end(form, form.argument("start"), 0), _end(form, form.argument("end"), 2**63 - 1)
    dim, step = form.whole(form.argument("dim", 0)), form.whole(form.argument("step", 1))
    return form.add("Slice", form.operand(), start, end, dim, step)


def _select(form: Form) -> str:
    return form.add("Gather", form.operand(), form.operand("index", "int64"), axis=form.argument("dim"))


def _split(form: Form) -> str:
    sizes, part = form.argument("split_sizes"), form.node.part
    if not all(isinstance(size, int) for size in sizes):
        raise form.refuse("splits at places that follow the inputs; split at numbers")
    start = sum(sizes[:part])
    ends = [form.whole(number) for number in (start, start + sizes[part], form.argument("dim", 0))]
    return form.add("Slice", form.operand(), *ends)


def _cat(form: Form) -> str:
    tensors = [form.tensor(entry, form.node.dtype) for entry in form.argument("tensors")]
    return form.add("Concat", *tensors, axis=form.argument("dim", 0))


def _squeeze(form: Form) -> str:
    dims = [dim for dim in form.argument("dim") if form.shape()[dim] == 1]
    return form.add("Squeeze", form.operand(), form.whole(*dims)) if dims else form.operand()


def _pad(form: Form) -> str:
    rank, amounts = form.rank, form.argument("pad")
    befores, afters = [0] * rank, [0] * rank
    for place in range(len(amounts) // 2):
        befores[rank - 1 - place], afters[rank - 1 - place] = amounts[2 * place], amounts[2 * place + 1]
    value = form.number(form.argument("value", 0), NUMPY[form.node.dtype])
    return form.add("Pad", form.operand(), form.sizes([*befores, *afters]), value)


def _flip(form: Form) -> str:
    dims = form.argument("dims")
    starts, ends = form.whole(*[-1] * len(dims)), form.whole(*[-(2**63)] * len(dims))
    return form.add("Slice", form.operand(), starts, ends, form.whole(*dims), form.whole(*[-1] * len(dims)))


def _where(form: Form) -> str:
    dtype = form.node.dtype
    return form.add("Where", form.operand("condition"), form.operand("self", dtype), form.operand("other", dtype))


def _index(form: Form) -> str:
    """Entries chosen along one dimension, or along the first ones together."""
    places = [(dim, entry) for dim, entry in enumerate(form.argument("indices")) if entry is not None]
    if any(form.dtype(entry) not in ("int64", "int32") for _, entry in places):
        raise form.refuse("chooses by a mask, which makes a size that depends on values; use where")
    source = form.operand("input")
    if len(places) == 1:
        ((dim, entry),) = places
        return form.add("Gather", source, form.tensor(entry), axis=dim)
    if [dim for dim, _ in places] != list(range(len(places))):
        raise form.refuse("chooses along dimensions that are not the first ones; permute them to the front")
    tensors = [form.tensor(entry, "int64") for _, entry in places]
    total = tensors[0]
    for tensor in tensors[1:]:
        total = form.add("Add", total, tensor)
    shape = form.add("Shape", total)
    columns = [form.add("Unsqueeze", form.add("Expand", tensor, shape), form.whole(-1)) for tensor in tensors]
    return form.add("GatherND", source, form.add("Concat", *columns, axis=-1))


def _topk(form: Form) -> str:
    values, places = (form.graph.claim(f"{form.node.name}/{word}") for word in ("values", "places"))
    count = form.sizes([form.argument("k")])
    settings = {"axis": form.argument("dim", -1), "largest": int(form.argument("largest", True))}
    form.graph.nodes.append(
        helper.make_node("TopK", [form.operand(), count], [values, places], name=values, **settings)
    )
    return places if form.node.part else values


def _triangle(upper: int) -> Write:
    return lambda form: form.add(
        "Trilu", form.operand(), form.number(form.argument("diagonal", 0), numpy.int64), upper=upper
    )


# --- numbers and sizes ----------------------------------------------------------------------------------------------


def _cast(form: Form) -> str:
    return form.add("Cast", form.operand("input"), to=TYPES[form.argument("dtype")])


def _full(form: Form) -> str:
    number = form.number(form.argument("value"), NUMPY[form.node.dtype])
    return form.add("Expand", number, form.sizes(form.argument("sizes")))


def _arange(form: Form) -> str:
    ends = [form.operand(name, "int64") for name in ("start", "end", "step")]
    counted = form.add("Range", *ends)
    return counted if form.node.dtype == "int64" else form.add("Cast", counted, to=TYPES[form.node.dtype])


def _size(form: Form) -> str:
    dim = form.argument("dim") % len(form.shape("input"))
    return form.add("Shape", form.operand("input"), start=dim, end=dim + 1)


def _computed_size(kind: str) -> Write:
    return lambda form: form.add(kind, *(form.sizes([form.argument(name)]) for name in ("first", "second")))


_UNARY = {
    "relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh", "exp": "Exp", "log": "Log", "sqrt": "Sqrt", "abs": "Abs",
    "neg": "Neg", "sin": "Sin", "cos": "Cos", "tan": "Tan", "asin": "Asin", "acos": "Acos", "atan": "Atan",
    "sinh": "Sinh", "cosh": "Cosh", "erf": "Erf", "reciprocal": "Reciprocal", "floor": "Floor", "ceil": "Ceil",
    "round": "Round", "sign": "Sign", "logical_not": "Not", "isnan": "IsNaN",
}  # fmt: skip

#: What adds the nodes of each of `qat.real.functions.FUNCTIONS`.
FORMS: dict[str, Write] = {
    **{f"aten.{name}.default": _unary(kind) for name, kind in _UNARY.items()},
    "aten.gelu.default": lambda form: form.add(
        "Gelu", form.operand(), approximate=form.argument("approximate", "none")
    ),
    "aten.rsqrt.default": lambda form: form.add("Reciprocal", form.add("Sqrt", form.operand())),
    "aten.silu.default": _silu,
    "aten.mish.default": _mish,
    "aten.hardswish.default": lambda form: form.add("Mul", form.operand(), _hard_sigmoid(form)),
    "aten.hardsigmoid.default": _hard_sigmoid,
    "aten.elu.default": _elu,
    "aten.leaky_relu.default": lambda form: form.add(
        "LeakyRelu", form.operand(), alpha=float(form.argument("negative_slope", 0.01))
    ),
    "aten.softplus.default": _softplus,
    "aten.hardtanh.default": _clip("min_val", "max_val"),
    "aten.clamp.default": _clip("min", "max"),
    "aten.bitwise_not.default": _bitwise_not,
    **dict.fromkeys(("aten.add.Tensor", "aten.add.Scalar"), _added("Add")),
    **dict.fromkeys(("aten.sub.Tensor", "aten.sub.Scalar"), _added("Sub")),
    "aten.rsub.Scalar": _reversed_difference,
    **dict.fromkeys(("aten.mul.Tensor", "aten.mul.Scalar"), _binary("Mul")),
    **dict.fromkeys(("aten.div.Tensor", "aten.div.Scalar"), _binary("Div")),
    **dict.fromkeys(("aten.div.Tensor_mode", "aten.div.Scalar_mode"), _rounded_quotient),
    **dict.fromkeys(
        ("aten.pow.Tensor_Scalar", "aten.pow.Tensor_Tensor", "aten.pow.Scalar"), _binary("Pow", "self", "exponent")
    ),
    "aten.maximum.default": _binary("Max"),
    "aten.minimum.default": _binary("Min"),
    "aten.remainder.Scalar": _remainder,
    "aten.floor_divide.default": _floor_divide,
    **{
        f"aten.{name}.{form}": _compared(kind, negated) for form in ("Tensor", "Scalar")
        for name, kind, negated in (
            ("eq", "Equal", False), ("ne", "Equal", True), ("lt", "Less", False), ("le", "LessOrEqual", False),
            ("gt", "Greater", False), ("ge", "GreaterOrEqual", False),
        )
    },
    **{f"aten.logical_{name}.default": _logical(name.capitalize()) for name in ("and", "or", "xor")},
    **{
        f"aten.bitwise_{name}.Tensor": _bitwise(name.capitalize(), f"Bitwise{name.capitalize()}")
        for name in ("and", "or", "xor")
    },
    **dict.fromkeys(("aten.matmul.default", "aten.bmm.default"), _matmul),
    "aten.layer_norm.default": _layer_norm,
    "aten.rms_norm.default": _rms_norm,
    "aten.group_norm.default": _group_norm,
    "aten._softmax.default": _softmax("Softmax"),
    "aten._log_softmax.default": _softmax("LogSoftmax"),
    **dict.fromkeys(("aten.mean.dim", "aten.mean.default"), _reduced("ReduceMean")),
    **dict.fromkeys(("aten.sum.dim_IntList", "aten.sum.default"), _reduced("ReduceSum")),
    "aten.prod.dim_int": _reduced("ReduceProd"),
    "aten.amax.default": _reduced("ReduceMax"),
    "aten.amin.default": _reduced("ReduceMin"),
    "aten.argmax.default": _arg("ArgMax"),
    "aten.argmin.default": _arg("ArgMin"),
    "aten.max.dim": _extreme("ReduceMax", "ArgMax"),
    "aten.min.dim": _extreme("ReduceMin", "ArgMin"),
    **dict.fromkeys(("aten.any.dim", "aten.any.default"), _any("ReduceMax")),
    "aten.all.dim": _any("ReduceMin"),
    "aten.cumsum.default": _cumsum,
    "aten.var.correction": _variance,
    "aten.linalg_vector_norm.default": _norm,
    "aten.max_pool2d_with_indices.default": _max_pool,
    **{f"aten.avg_pool{count}d.default": _avg_pool(count) for count in (1, 2, 3)},
    **{f"aten.adaptive_avg_pool{count}d.default": _adaptive_avg_pool for count in (1, 2, 3)},
    "aten.upsample_nearest2d.vec": _resized("nearest"),
    "aten.upsample_bilinear2d.vec": _resized("linear"),
    "aten.permute.default": lambda form: form.add(
        "Transpose", form.operand(), perm=[dim % form.rank for dim in form.argument("dims")]
    ),
    "aten.slice.Tensor": _slice,
    "aten.select.int": _select,
    "aten.split_with_sizes.default": _split,
    "aten.cat.default": _cat,
    "aten.unsqueeze.default": lambda form: form.add("Unsqueeze", form.operand(), form.whole(form.argument("dim"))),
    "aten.squeeze.dims": _squeeze,
    "aten.constant_pad_nd.default": _pad,
    "aten.index_select.default": lambda form: form.add(
        "Gather", form.operand(), form.operand("index"), axis=form.argument("dim")
    ),
    "aten.gather.default": lambda form: form.add(
        "GatherElements", form.operand(), form.operand("index"), axis=form.argument("dim")
    ),
    "aten.flip.default": _flip,
    "aten.where.self": _where,
    "aten.topk.default": _topk,
    "aten.tril.default": _triangle(0),
    "aten.triu.default": _triangle(1),
    "aten.embedding.default": layers.embedding,
    "linear": layers.linear,
    "convolution": layers.convolution,
    "reshape": _reshape,
    "expand": _expand,
    "index": _index,
    "cast": _cast,
    "full": _full,
    "arange": _arange,
    "size": _size,
    "size.add": _computed_size("Add"),
    "size.sub": _computed_size("Sub"),
    "size.mul": _computed_size("Mul"),
    "size.floordiv": _computed_size("Div"),
}  # fmt: skip
