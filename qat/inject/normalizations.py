"""Normalizations by statistics of the values themselves, read from the calls of eager code and of exported graphs.

Layer norm (arXiv:1607.06450), RMS norm (arXiv:1910.07467), group norm (arXiv:1803.08494), instance norm
(arXiv:1607.08022).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_TORCH = {
    "layer_norm": ("input", "normalized_shape", "weight", "bias", "eps"),
    "rms_norm": ("input", "normalized_shape", "weight", "eps"),
    "group_norm": ("input", "num_groups", "weight", "bias", "eps"),
    "instance_norm": (
        "input", "running_mean", "running_var", "weight", "bias", "use_input_stats", "momentum", "eps",
    ),
}  # fmt: skip
_ATEN = _TORCH | {
    "instance_norm": (
        "input", "weight", "bias", "running_mean", "running_var", "use_input_stats", "momentum", "eps",
    ),
}  # fmt: skip
_EPSILON = {"layer_norm": 1e-5, "group_norm": 1e-5, "instance_norm": 1e-5}


@dataclass(frozen=True)
class Normalization:
    """One call, as statistics over the last dimensions of a value.

    view: shape without the batch in which the statistics are over the last `over` dimensions. gain, shift: real,
    broadcast to that shape; None for none.
    """

    view: tuple[int, ...]
    over: int
    centered: bool
    epsilon: float
    gain: Tensor | None
    shift: Tensor | None

    @property
    def dims(self) -> tuple[int, ...]:
        """The dimensions, counted with the batch, that the statistics are over."""
        return tuple(range(len(self.view) + 1 - self.over, len(self.view) + 1))

    @property
    def count(self) -> int:
        """How many elements are normalized together."""
        return math.prod(self.view[len(self.view) - self.over :])


def uses_own_statistics(args: tuple, kwargs: dict, is_aten: bool) -> bool:
    """Whether an instance norm computes the statistics of its input, and does not take running ones."""
    given = dict(zip((_ATEN if is_aten else _TORCH)["instance_norm"], args, strict=False)) | kwargs
    return bool(given.get("use_input_stats", True))


def normalization_of(name: str, args: tuple, kwargs: dict, shape: tuple[int, ...], is_aten: bool) -> Normalization:
    """The normalization that a call makes of a value of `shape`, without the batch."""
    names = (_ATEN if is_aten else _TORCH)[name]
    given = dict(zip(names, args, strict=False)) | kwargs
    gain, shift = (None if given.get(key) is None else given[key].detach() for key in ("weight", "bias"))
    epsilon = given.get("eps", _EPSILON.get(name))
    if epsilon is None:
        epsilon = torch.finfo(torch.float32).eps
    if name in ("layer_norm", "rms_norm"):
        return Normalization(shape, len(given["normalized_shape"]), name == "layer_norm", epsilon, gain, shift)
    channels = shape[0]
    groups = channels if name == "instance_norm" else given["num_groups"]
    view = (groups, channels // groups, *shape[1:])
    along = (groups, channels // groups, *[1] * (len(shape) - 1))
    gain, shift = (None if constant is None else constant.reshape(along) for constant in (gain, shift))
    return Normalization(view, len(view) - 1, True, epsilon, gain, shift)
