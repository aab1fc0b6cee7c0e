"""What runs over whole dimensions: sums, extremes and their places, variances and lengths of vectors."""

import math

import numpy

from qat.emitters.onnxruntime.real.form import Form
from qat.emitters.onnxruntime.real.forms.write import Write
from qat.emitters.onnxruntime.real.graph import TYPES
from qat.integer.geometry import per_dimension


def _axes(form: Form) -> list[str]:
    """The axes of a reduction as inputs of a node: none for all of them."""
    dims = form.argument("dim")
    dims = () if dims is None else per_dimension(dims, 1)
    return [form.whole(*dims)] if dims else []


def _reduced(kind: str) -> Write:
    def write(form: Form) -> str:
        keep = int(form.argument("keepdim", False))
        return form.add(kind, form.operand("self", form.node.dtype), *_axes(form), keepdims=keep)

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


FORMS: dict[str, Write] = {
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
}  # fmt: skip
