"""Comparisons, and what is computed of their results."""

from qat.emitters.onnxruntime.real.form import Form
from qat.emitters.onnxruntime.real.forms.write import Write, binary


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
        return binary(kind)(form)

    return write


def _bitwise_not(form: Form) -> str:
    return form.add("Not" if form.node.dtype == "bool" else "BitwiseNot", form.operand())


FORMS: dict[str, Write] = {
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
    "aten.bitwise_not.default": _bitwise_not,
}  # fmt: skip
