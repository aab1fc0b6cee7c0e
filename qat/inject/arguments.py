"""Arguments with which an operation that has an integer form has none, told while the network is recorded."""

from torch import Tensor

from qat.inject.operations import Operation

#: Positions of arguments, after the input, of pools and padding.
_POSITIONS = {
    "avg_pool1d": ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad"),
    **dict.fromkeys(
        ("avg_pool2d", "avg_pool3d"),
        ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override"),
    ),
    "pad": ("pad", "mode", "value"),
}


def reason_against(operation: Operation, args: tuple, kwargs: dict) -> str | None:
    """Why a call with these arguments has no integer form, and what to do; None where nothing speaks against it."""
    positions = _POSITIONS.get(operation.name, ())
    given = dict(zip(positions, args[1:], strict=False)) | kwargs
    match operation.name:
        case "add":
            if given.get("alpha", 1) != 1:
                return f"alpha={given['alpha']} scales the second operand; multiply it before adding"
        case "avg_pool1d" | "avg_pool2d" | "avg_pool3d":
            if given.get("ceil_mode"):
                return "ceil_mode=True averages windows of unequal size; use ceil_mode=False"
            if not given.get("count_include_pad", True) and _any(given.get("padding", 0)):
                return "count_include_pad=False averages windows of unequal size; use count_include_pad=True"
            if given.get("divisor_override"):
                return "divisor_override is no mean; multiply behind the pool instead"
        case "pad":
            if given.get("mode", "constant") != "constant":
                return f"padding mode {given['mode']!r}; pad with zeros"
            if any(amount < 0 for amount in given.get("pad", ())):
                return f"negative amounts {tuple(given['pad'])}; cut with a slice instead"
        case "getitem":
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            if any(isinstance(place, list | Tensor) for place in index):
                return "a list of indices; cut slices, and join them with torch.cat"
    return None


def _any(padding) -> bool:
    return any(padding) if isinstance(padding, tuple | list) else bool(padding)
