"""What a form is: a function that adds the ONNX nodes of one node of a program."""

from collections.abc import Callable

from qat.emitters.onnxruntime.real.form import Form

#: Returns the name of the result.
Write = Callable[[Form], str]


def binary(kind: str, *names: str) -> Write:
    """Both operands in the type of the result."""
    first, second = names or ("self", "other")
    return lambda form: form.add(kind, form.operand(first, form.node.dtype), form.operand(second, form.node.dtype))
