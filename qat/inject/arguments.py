"""Arguments with which an operation that has an integer form has none, told while the network is recorded."""

from collections.abc import Container

import torch
from torch import Tensor

from qat.inject.choices import unsized_number
from qat.inject.normalizations import uses_own_statistics
from qat.inject.operations import CASTS, Operation


def reason_against(operation: Operation, args: tuple, kwargs: dict) -> str | None:
    """Why a call with these arguments has no integer form, and what to do; None where nothing speaks against it."""
    match operation.name:
        case "div":
            if kwargs.get("rounding_mode") is not None:
                return f"rounding_mode={kwargs['rounding_mode']!r} cuts values off; divide without"
        case "instance_norm":
            if not uses_own_statistics(args, kwargs, is_aten=False):
                return "running statistics in eval mode; set track_running_stats=False, or use a batch norm"
        case "pad" | "constant_pad_nd":
            value = kwargs.get("value", args[-1] if len(args) == (4 if operation.name == "pad" else 3) else None)
            if value:
                return f"padding with {value}, which has no code beside values; pad with a number of their size"
        case "where" | "masked_fill":
            number = unsized_number(operation, args, kwargs)
            if number is not None:
                return (
                    f"{number} has no code beside values; fill with a number of their size, or mask the scores of a "
                    "softmax"
                )
        case "getitem":
            if has_mask(args[1]):
                return (
                    "a mask as an index, which gives as many values as it happens to be true; choose by the numbers of "
                    "the places, or keep all places with torch.where"
                )
        case "interpolate":
            if isinstance(kwargs.get("size", args[1] if len(args) > 1 else None), Tensor):
                return "a size that is a tensor; give numbers"
    return None


def reason_against_rounding(
    operation: Operation, operands: list[Tensor], result, types: Container[torch.dtype]
) -> str | None:
    """Why a conversion of real numbers to fewer bits has no integer form; None for any other call.

    types: those of the network's own parameters and buffers. What a network of such numbers converts to them is its own
    affair; in another one, values and sums of codes would be rounded to 8 or 11 bits, and integers are not.
    """
    if operation.name not in CASTS or not operands or not isinstance(result, Tensor):
        return None
    narrows = result.is_floating_point() and result.itemsize < min(operands[0].itemsize, torch.float32.itemsize)
    if not narrows or result.dtype in types:
        return None
    narrow = str(result.dtype).removeprefix("torch.")
    return f"it rounds values to {narrow}, and integers have bits of their own; remove it"


def has_mask(index) -> bool:
    """Whether an index holds a mask, and so chooses as many entries as that happens to be true."""
    places = index if isinstance(index, tuple) else (index,)
    return any(isinstance(place, Tensor) and place.dtype == torch.bool for place in places)
