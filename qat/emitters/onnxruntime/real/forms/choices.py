"""What chooses among numbers by other numbers: indices, conditions, the largest, a triangle."""

import numpy
from onnx import helper

from qat.emitters.onnxruntime.real.form import Form
from qat.emitters.onnxruntime.real.forms.write import Write


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


FORMS: dict[str, Write] = {
    "index": _index,
    "aten.index_select.default": lambda form: form.add(
        "Gather", form.operand(), form.operand("index"), axis=form.argument("dim")
    ),
    "aten.gather.default": lambda form: form.add(
        "GatherElements", form.operand(), form.operand("index"), axis=form.argument("dim")
    ),
    "aten.where.self": _where,
    "aten.topk.default": _topk,
    "aten.tril.default": _triangle(0),
    "aten.triu.default": _triangle(1),
}  # fmt: skip
