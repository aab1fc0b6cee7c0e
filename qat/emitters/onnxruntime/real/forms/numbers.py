"""Types of numbers, tensors made of none, and sizes."""

from qat.emitters.onnxruntime.real.form import Form
from qat.emitters.onnxruntime.real.forms.write import Write
from qat.emitters.onnxruntime.real.graph import NUMPY, TYPES


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


FORMS: dict[str, Write] = {
    "cast": _cast,
    "full": _full,
    "arange": _arange,
    "size": _size,
    "size.add": _computed_size("Add"),
    "size.sub": _computed_size("Sub"),
    "size.mul": _computed_size("Mul"),
    "size.floordiv": _computed_size("Div"),
}  # fmt: skip
