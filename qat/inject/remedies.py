"""What to write instead of an operation that has no integer form, by its canonical name."""

from qat.inject.pointwise import NONLINEAR

_NUMBER = "give it one number for all elements, as a table of one value has"

REMEDIES = {
    **dict.fromkeys(sorted(NONLINEAR - {"maximum", "minimum"}), _NUMBER),
    "logsumexp": "apply it to the network's outputs, behind the integers",
    "prod": "multiply slices of it",
    "index": "cut slices, and join them with torch.cat",
}


def remedy_for(name: str) -> str:
    """What to write instead of the operation called `name`."""
    return REMEDIES.get(name, "replace it, or quantize a sub-network (module=)")
