"""Constants that a mask of the inputs chooses between: additive masks of attention, and biases with a mask in them."""

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Node

from qat.integer.program import Select
from qat.lowering.index_ranges import COMPARISONS
from qat.lowering.indices import as_function, function_node, is_discrete, mask_of
from qat.lowering.pointwise import Mapped
from qat.lowering.state import Pending, Program, Quantized, QuantizedConstant, batch_shape

_IDENTITIES = frozenset({"contiguous", "clone", "detach", "to", "type_as"})


@dataclass(frozen=True)
class Chosen:
    """`first` where the mask is True, `second` elsewhere; real numbers."""

    mask: Mapped
    first: Tensor
    second: Tensor


def chosen_by_mask(node: Node, condition, first, second) -> Pending | Chosen:
    """aten.where of a mask between constants: a function of the mask where both are single numbers."""
    mask = as_function(condition)
    first, second = (torch.as_tensor(constant, dtype=torch.float32) for constant in (first, second))
    if first.numel() == second.numel() == 1:
        points = torch.where(mask.points.bool(), first.double().flatten(), second.double().flatten())
        return function_node(node, Mapped(mask.root, points))
    return Chosen(mask, first, second)


def function_of_chosen(node: Node, name: str, args: tuple) -> Pending | Chosen | None:
    """What a node makes of constants that a mask chose; None where that is nothing simple."""
    chosen = args[0]
    if not isinstance(chosen, Chosen):
        return None
    if name in _IDENTITIES:
        return chosen
    if name in COMPARISONS:
        return _compared(node, name, chosen, args[1])
    if name == "masked_fill" and is_discrete(args[1]) and as_function(args[1]).root is chosen.mask.root:
        return _filled(chosen, as_function(args[1]).points.bool(), torch.as_tensor(args[2], dtype=torch.float32))
    return None


def quantized_choice(program: Program, node: Node, chosen: Chosen, quantizer) -> Quantized:
    """Chosen constants on the grid of `quantizer`."""
    shape = batch_shape(node)
    operands = [
        program.operand(QuantizedConstant(constant, quantizer), len(shape))
        for constant in (chosen.first, chosen.second)
    ]
    mask = mask_of(program, node, Pending(chosen.mask.root.shape, None, mapped=chosen.mask))
    return dataclasses.replace(program.join(node, (mask, *operands), shape, Select), quantizer=quantizer.name)


def _compared(node: Node, name: str, chosen: Chosen, number) -> Pending | None:
    """A comparison that comes out the same for all entries of each constant: a function of the mask."""
    sides = [getattr(torch, name)(constant, number).flatten() for constant in (chosen.first, chosen.second)]
    if not all(bool((side == side[0]).all()) for side in sides):
        return None
    points = torch.where(chosen.mask.points.bool(), *(side[:1] for side in sides))
    return function_node(node, Mapped(chosen.mask.root, points))


def _filled(chosen: Chosen, filled: Tensor, value: Tensor) -> Chosen | None:
    """Another number in the place of one of the constants. filled: for each code of the mask's root."""
    sides = [filled[chosen.mask.points.bool() == side] for side in (True, False)]
    if not all(side.numel() and bool((side == side[0]).all()) for side in sides):
        return None
    constants = zip(sides, (chosen.first, chosen.second), strict=True)
    first, second = (value if bool(side[0]) else constant for side, constant in constants)
    return dataclasses.replace(chosen, first=first, second=second)
