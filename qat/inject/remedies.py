"""What to write instead of an operation that has no integer form, by its canonical name."""

from qat.inject.pointwise import NONLINEAR

_BEHIND = "apply it to the network's outputs, behind the integers"
_NORM = "normalize with a layer norm or a group norm, which have an integer kernel"
_NUMBER = "give it one number for all elements, as a table of one value has"
_MOVE = "cut slices, and join them with torch.cat"

REMEDIES = {
    **dict.fromkeys(sorted(NONLINEAR), _NUMBER),
    "sum": "use mean, and multiply by the count",
    "max": "use amax, which leaves the indices out",
    "logsumexp": _BEHIND,
    **dict.fromkeys(("std", "var", "std_mean", "var_mean"), _NORM),
    **dict.fromkeys(("flip", "roll", "index", "index_select", "gather", "expand", "repeat", "tile"), _MOVE),
}


def remedy_for(name: str) -> str:
    """What to write instead of the operation called `name`."""
    return REMEDIES.get(name, "replace it, or quantize a sub-network (module=)")
