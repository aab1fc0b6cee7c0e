"""Products of matrices, and layers with weights."""

from qat.emitters.onnxruntime.real import layers
from qat.emitters.onnxruntime.real.form import Form
from qat.emitters.onnxruntime.real.forms.write import Write


def _matmul(form: Form) -> str:
    second = "other" if "other" in form.node.named else "mat2"
    return form.add("MatMul", form.operand("self"), form.operand(second))


FORMS: dict[str, Write] = {
    **dict.fromkeys(("aten.matmul.default", "aten.bmm.default"), _matmul),
    "aten.embedding.default": layers.embedding,
    "linear": layers.linear,
    "convolution": layers.convolution,
}  # fmt: skip
