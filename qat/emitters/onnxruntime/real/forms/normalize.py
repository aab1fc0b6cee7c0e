"""Norms and softmax."""

import numpy

from qat.emitters.onnxruntime.real.form import Form
from qat.emitters.onnxruntime.real.forms.write import Write
from qat.real.nodes import Ref


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


FORMS: dict[str, Write] = {
    "aten.layer_norm.default": _layer_norm,
    "aten.rms_norm.default": _rms_norm,
    "aten.group_norm.default": _group_norm,
    "aten._softmax.default": _softmax("Softmax"),
    "aten._log_softmax.default": _softmax("LogSoftmax"),
}  # fmt: skip
