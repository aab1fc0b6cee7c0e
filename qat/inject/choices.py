"""Values that are chosen element by element, by a mask or by their size: `where`, `masked_fill`, `maximum`.

What is chosen from shares one grid. A number to choose from becomes a constant tensor, to be put on that grid.
"""

import torch
from torch import Tensor

from qat.inject.calls import Slot, has_slot, operand_at, with_operand
from qat.inject.operations import Operation

#: Numbers of this size and more mean "left out", as minus infinity does, and are no values of a network.
LARGEST_NUMBER = 6e4
_PLACES = {
    "where": (("args", 1), ("args", 2), ("kwargs", "input"), ("kwargs", "self"), ("kwargs", "other")),
    "masked_fill": (("args", 2), ("kwargs", "value")),
}
#: Operations whose integers tell how real values compare, so that those are read as codes.
COMPARING = frozenset("eq ne lt le gt ge argmax argmin topk sort max min".split())


def is_value_sized(number) -> bool:
    """Whether a number can stand beside values on their grid."""
    return isinstance(number, int | float) and abs(number) < LARGEST_NUMBER


def with_constants(operation: Operation, args: tuple, kwargs: dict) -> tuple[tuple, dict, list[Tensor]]:
    """(args, kwargs, the constants that now stand for the numbers that a call chooses from)."""
    made: list[Tensor] = []
    x = next((x for x in (*args, *kwargs.values()) if isinstance(x, Tensor) and x.is_floating_point()), None)
    for slot, number in _numbers(operation, args, kwargs):
        if x is not None and is_value_sized(number):
            made.append(torch.full((), float(number), dtype=x.dtype, device=x.device))
            args, kwargs = with_operand(args, kwargs, slot, made[-1])
    return args, kwargs, made


def unsized_number(operation: Operation, args: tuple, kwargs: dict) -> float | None:
    """A number among those a call chooses from that is too large to be a value; None where there is none."""
    numbers = (number for _, number in _numbers(operation, args, kwargs))
    return next((float(number) for number in numbers if not is_value_sized(number)), None)


def _numbers(operation: Operation, args: tuple, kwargs: dict) -> list[tuple[Slot, float]]:
    """The Python numbers that a call chooses from, and where they stand."""
    given = [slot for slot in _PLACES.get(operation.name, ()) if has_slot(args, kwargs, slot)]
    operands = ((slot, operand_at(args, kwargs, slot)) for slot in given)
    return [(slot, operand) for slot, operand in operands if isinstance(operand, int | float)]
