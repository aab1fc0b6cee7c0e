"""Operations that multiply values with weights: where in their arguments what stands."""

import dataclasses
from dataclasses import dataclass

from qat.inject.calls import Call, Slot


@dataclass(frozen=True)
class WeightedForm:
    """Where the input, the weight and the bias of an operation stand, and where its channels are.

    axis: of the output channels in the weight. channels: the same in the result, counted from the end.
    """

    axis: int
    channels: int
    inputs: tuple[Slot, ...] = (("args", 0), ("kwargs", "input"))
    weight: tuple[Slot, ...] = (("args", 1), ("kwargs", "weight"))
    bias: tuple[Slot, ...] = (("args", 2), ("kwargs", "bias"))

    @property
    def needs_bias(self) -> bool:
        """Whether the operation cannot go without a bias; a zero stands for none."""
        return ("args", 0) in self.bias


_LAYERS = {
    **{f"conv{n}d": WeightedForm(axis=0, channels=-n - 1) for n in (1, 2, 3)},
    **{f"conv_transpose{n}d": WeightedForm(axis=1, channels=-n - 1) for n in (1, 2, 3)},
    "linear": WeightedForm(axis=0, channels=-1),
}
_SECOND = (("args", 1), ("kwargs", "other"), ("kwargs", "mat2"))
_PRODUCT = WeightedForm(axis=1, channels=-1, weight=_SECOND, bias=())
#: Products that are layers where the second factor is a constant matrix.
_PRODUCTS = {
    "matmul": _PRODUCT,
    "mm": _PRODUCT,
    "addmm": WeightedForm(
        axis=1,
        channels=-1,
        inputs=(("args", 1), ("kwargs", "mat1")),
        weight=(("args", 2), ("kwargs", "mat2")),
        bias=(("args", 0), ("kwargs", "input")),
    ),
}


def weighted_form(call: Call) -> WeightedForm | None:
    """Where a call has its weight; None for one that has none."""
    if call.operation.name in _LAYERS:
        form = _LAYERS[call.operation.name]
        return dataclasses.replace(form, axis=0) if _is_depthwise_transposed(call, form) else form
    form = _PRODUCTS.get(call.operation.name)
    if form is None:
        return None
    weights = [operand for slot in form.weight for operand in call.operands.get(slot, ())]
    inputs = [operand for slot in form.inputs for operand in call.operands.get(slot, ())]
    is_layer = weights and all(operand.value is None and len(operand.shape) == 2 for operand in weights)
    return form if is_layer and any(operand.value is not None for operand in inputs) else None


def _is_depthwise_transposed(call: Call, form: WeightedForm) -> bool:
    """Whether a layer is a transposed convolution (I, 1, *kernel) of as many groups as it has inputs and outputs."""
    shapes = [operand.shape for slot in form.weight for operand in call.operands.get(slot, ())]
    outputs = call.output_shape[form.channels] if call.output_shape else None
    return form.axis == 1 and bool(shapes) and shapes[0][1] == 1 and shapes[0][0] == outputs
