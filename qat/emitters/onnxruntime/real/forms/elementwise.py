"""Arithmetic, and the other functions of each element that are no activation and no comparison."""

from qat.emitters.onnxruntime.real.form import Form
from qat.emitters.onnxruntime.real.forms.write import Write, binary
from qat.emitters.onnxruntime.real.graph import NUMPY


def _unary(kind: str) -> Write:
    return lambda form: form.add(kind, form.operand())


def _by_alpha(form: Form, operand: str) -> str:
    """The operand times `alpha`."""
    alpha = form.argument("alpha", 1)
    return operand if alpha == 1 else form.add("Mul", operand, form.number(alpha, NUMPY[form.node.dtype]))


def _added(kind: str) -> Write:
    def write(form: Form) -> str:
        first, second = form.operand("self", form.node.dtype), form.operand("other", form.node.dtype)
        return form.add(kind, first, _by_alpha(form, second))

    return write


def _reversed_difference(form: Form) -> str:
    first = _by_alpha(form, form.operand("self", form.node.dtype))
    return form.add("Sub", form.operand("other", form.node.dtype), first)


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
    return binary("Div")(form)


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


_NODES = {
    "relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh", "exp": "Exp", "log": "Log", "sqrt": "Sqrt", "abs": "Abs",
    "neg": "Neg", "sin": "Sin", "cos": "Cos", "tan": "Tan", "asin": "Asin", "acos": "Acos", "atan": "Atan",
    "sinh": "Sinh", "cosh": "Cosh", "erf": "Erf", "reciprocal": "Reciprocal", "floor": "Floor", "ceil": "Ceil",
    "round": "Round", "sign": "Sign", "logical_not": "Not", "isnan": "IsNaN",
}  # fmt: skip

FORMS: dict[str, Write] = {
    **{f"aten.{name}.default": _unary(kind) for name, kind in _NODES.items()},
    "aten.rsqrt.default": lambda form: form.add("Reciprocal", form.add("Sqrt", form.operand())),
    "aten.hardtanh.default": _clip("min_val", "max_val"),
    "aten.clamp.default": _clip("min", "max"),
    **dict.fromkeys(("aten.add.Tensor", "aten.add.Scalar"), _added("Add")),
    **dict.fromkeys(("aten.sub.Tensor", "aten.sub.Scalar"), _added("Sub")),
    "aten.rsub.Scalar": _reversed_difference,
    **dict.fromkeys(("aten.mul.Tensor", "aten.mul.Scalar"), binary("Mul")),
    **dict.fromkeys(("aten.div.Tensor", "aten.div.Scalar"), binary("Div")),
    **dict.fromkeys(("aten.div.Tensor_mode", "aten.div.Scalar_mode"), _rounded_quotient),
    **dict.fromkeys(
        ("aten.pow.Tensor_Scalar", "aten.pow.Tensor_Tensor", "aten.pow.Scalar"), binary("Pow", "self", "exponent")
    ),
    "aten.maximum.default": binary("Max"),
    "aten.minimum.default": binary("Min"),
    "aten.remainder.Scalar": _remainder,
    "aten.floor_divide.default": _floor_divide,
}  # fmt: skip
