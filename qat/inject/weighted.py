"""Operations that multiply values with weights: where in their arguments what stands."""

from dataclasses import dataclass

from qat.inject.calls import Slot


@dataclass(frozen=True)
class WeightedOperation:
    """Where the weight and the bias of an operation stand, and which axis of the weight is the output channel."""

    weight: tuple[Slot, ...]
    bias: tuple[Slot, ...]
    axis: int


INPUT_SLOTS = (("args", 0), ("kwargs", "input"))
_WEIGHT_SLOTS = (("args", 1), ("kwargs", "weight"))
_BIAS_SLOTS = (("args", 2), ("kwargs", "bias"))
WEIGHTED = {
    **{f"conv{n}d": WeightedOperation(_WEIGHT_SLOTS, _BIAS_SLOTS, axis=0) for n in (1, 2, 3)},
    **{f"conv_transpose{n}d": WeightedOperation(_WEIGHT_SLOTS, _BIAS_SLOTS, axis=1) for n in (1, 2, 3)},
    "linear": WeightedOperation(_WEIGHT_SLOTS, _BIAS_SLOTS, axis=0),
}
