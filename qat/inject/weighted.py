"""Operations that multiply values with weights: where in their arguments what stands."""

from dataclasses import dataclass

from qat.inject.calls import Slot


@dataclass(frozen=True)
class WeightedOperation:
    """Where the weight and the bias of an operation stand, and where its channels are.

    axis: of the output channels in the weight. channels: the same in the result, counted from the end.
    """

    weight: tuple[Slot, ...]
    bias: tuple[Slot, ...]
    axis: int
    channels: int


INPUT_SLOTS = (("args", 0), ("kwargs", "input"))
_WEIGHT_SLOTS = (("args", 1), ("kwargs", "weight"))
_BIAS_SLOTS = (("args", 2), ("kwargs", "bias"))
WEIGHTED = {
    **{f"conv{n}d": WeightedOperation(_WEIGHT_SLOTS, _BIAS_SLOTS, axis=0, channels=-n - 1) for n in (1, 2, 3)},
    **{
        f"conv_transpose{n}d": WeightedOperation(_WEIGHT_SLOTS, _BIAS_SLOTS, axis=1, channels=-n - 1) for n in (1, 2, 3)
    },
    "linear": WeightedOperation(_WEIGHT_SLOTS, _BIAS_SLOTS, axis=0, channels=-1),
}
