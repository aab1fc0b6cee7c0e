"""Activation functions."""

from qat.emitters.onnxruntime.real.form import Form
from qat.emitters.onnxruntime.real.forms.write import Write


def _silu(form: Form) -> str:
    source = form.operand()
    return form.add("Mul", source, form.add("Sigmoid", source))


def _mish(form: Form) -> str:
    source = form.operand()
    return form.add("Mul", source, form.add("Tanh", form.add("Softplus", source)))


def _hard_sigmoid(form: Form) -> str:
    return form.add("HardSigmoid", form.operand(), alpha=1 / 6, beta=0.5)


def _elu(form: Form) -> str:
    if (form.argument("scale", 1), form.argument("input_scale", 1)) != (1, 1):
        raise form.refuse("scales its parts; use an ELU with scale and input_scale of 1")
    return form.add("Elu", form.operand(), alpha=float(form.argument("alpha", 1)))


def _softplus(form: Form) -> str:
    if (form.argument("beta", 1), form.argument("threshold", 20)) != (1, 20):
        raise form.refuse("has another beta or threshold than 1 and 20; use these")
    return form.add("Softplus", form.operand())


FORMS: dict[str, Write] = {
    "aten.gelu.default": lambda form: form.add(
        "Gelu", form.operand(), approximate=form.argument("approximate", "none")
    ),
    "aten.silu.default": _silu,
    "aten.mish.default": _mish,
    "aten.hardswish.default": lambda form: form.add("Mul", form.operand(), _hard_sigmoid(form)),
    "aten.hardsigmoid.default": _hard_sigmoid,
    "aten.elu.default": _elu,
    "aten.leaky_relu.default": lambda form: form.add(
        "LeakyRelu", form.operand(), alpha=float(form.argument("negative_slope", 0.01))
    ),
    "aten.softplus.default": _softplus,
}  # fmt: skip
