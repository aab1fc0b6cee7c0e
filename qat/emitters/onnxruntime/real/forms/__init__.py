"""The functions of real programs as ONNX nodes, one form for each; a form returns the name of its result."""

from qat.emitters.onnxruntime.real.forms import (
    activations,
    choices,
    elementwise,
    logic,
    moves,
    normalize,
    numbers,
    products,
    reductions,
    windows,
)
from qat.emitters.onnxruntime.real.forms.write import Write

#: What adds the nodes of each of `qat.real.functions.FUNCTIONS`.
FORMS: dict[str, Write] = {
    **activations.FORMS,
    **choices.FORMS,
    **elementwise.FORMS,
    **logic.FORMS,
    **moves.FORMS,
    **normalize.FORMS,
    **numbers.FORMS,
    **products.FORMS,
    **reductions.FORMS,
    **windows.FORMS,
}
