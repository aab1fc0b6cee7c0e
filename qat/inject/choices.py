"""Values that are chosen element by element, by a mask or by their size: `where`, `masked_fill`, `maximum`.

What is chosen from shares one grid. A number to choose from becomes a constant tensor, to be put on that grid.
"""

import torch
from torch import Tensor

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
    for kind, place in _PLACES.get(operation.name, ()):
        is_given = place < len(args) if kind == "args" else place in kwargs
        number = (args[place] if kind == "args" else kwargs[place]) if is_given else None
        x = next((x for x in (*args, *kwargs.values()) if isinstance(x, Tensor) and x.is_floating_point()), None)
        if x is None or not is_value_sized(number):
            continue
        constant = torch.full((), float(number), dtype=x.dtype, device=x.device)
        made.append(constant)
        if kind == "args":
            args = (*args[:place], constant, *args[place + 1 :])
        else:
            kwargs = {**kwargs, place: constant}
    return args, kwargs, made


def unsized_number(operation: Operation, args: tuple, kwargs: dict) -> float | None:
    """A number among those a call chooses from that is too large to be a value; None where there is none."""
    for kind, place in _PLACES.get(operation.name, ()):
        is_given = place < len(args) if kind == "args" else place in kwargs
        number = (args[place] if kind == "args" else kwargs[place]) if is_given else None
        if isinstance(number, int | float) and not is_value_sized(number):
            return float(number)
    return None
