"""Masks of attention: places that a softmax leaves out, however a network writes them.

Networks fill masked scores with minus infinity, with the smallest float32, or add some -100 to them. Such numbers have
no code, and need none: a masked score keeps its grid, and the integer softmax knows which places take part.
"""

import torch
from torch import Tensor

from qat.inject.operations import Operation

#: What is added to a score, or put in its place, to leave it out: exp(-50) is 2e-22 of the largest weight.
MASKED_BELOW = -50.0
#: Operations that read masked scores as they are meant.
READERS = frozenset({"softmax", "log_softmax"})
_MASKING = frozenset({"add", "masked_fill", "where"})


def mask_of(operation: Operation, args: tuple, kwargs: dict, is_value, is_known: bool = False) -> Tensor | None:
    """Where the call leaves scores out, as a bool tensor that broadcasts against them; None where it is no mask.

    is_value: tells the tensors that depend on the inputs from constants. is_known: the constants are known to leave
    out, and not looked at (in an exported graph they cannot be).
    """
    if operation.name not in _MASKING:
        return None
    match operation.name:
        case "masked_fill":
            _, mask, fill = _given(args, kwargs, ("input", "mask", "value"))
            return mask if _is_low(fill, is_known) else None
        case "where":
            if len(args) + len(kwargs) < 3:
                return None
            condition, first, second = _given(args, kwargs, ("condition", "input", "other"))
            if _is_low(first, is_known and not is_value(first)):
                return condition
            return condition.logical_not() if _is_low(second, is_known) else None
        case "add":
            if kwargs.get("alpha", 1) != 1:
                return None
            for operand in (*args, *kwargs.values()):
                if isinstance(operand, Tensor) and not is_value(operand) and (is_known or _leaves_out(operand)):
                    return operand <= MASKED_BELOW
    return None


def _given(args: tuple, kwargs: dict, names: tuple[str, ...]) -> tuple:
    given = dict(zip(names, args, strict=False)) | kwargs
    if "self" in given:
        given[names[0]] = given["self"]
    return tuple(given.get(name) for name in names)


def _is_low(fill, is_known: bool) -> bool:
    if isinstance(fill, Tensor):
        return is_known or fill.numel() == 1 and float(fill) <= MASKED_BELOW
    return isinstance(fill, int | float) and fill <= MASKED_BELOW


def _leaves_out(constant: Tensor) -> bool:
    """Whether a constant adds nothing, or leaves out."""
    if not constant.is_floating_point() or constant.dim() < 2:
        return False
    return bool(((constant == 0) | (constant <= MASKED_BELOW)).all())


def masked(scores: Tensor, mask: Tensor) -> Tensor:
    """The scores with the smallest number of their type where they are left out."""
    return torch.where(mask, torch.finfo(scores.dtype).min, scores)


def left_out(scores: Tensor) -> Tensor:
    """Where `masked` left scores out."""
    return scores <= torch.finfo(scores.dtype).min / 2
