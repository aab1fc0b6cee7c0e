"""What moves numbers to other places by its shapes alone."""

from qat.emitters.onnxruntime.real.form import Form
from qat.emitters.onnxruntime.real.forms.write import Write
from qat.emitters.onnxruntime.real.graph import NUMPY


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


FORMS: dict[str, Write] = {
    "reshape": _reshape,
    "expand": _expand,
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
    "aten.flip.default": _flip,
}  # fmt: skip
