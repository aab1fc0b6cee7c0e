"""Where the tensors of a forward come from: what tells apart the calls that loops and shared layers make in one place.

Calls of one place in the code share an address if they mean the same: the same operation, with the same parameters, on
values that come from the same layer. What counts is where a value comes from and not what ran before, so a branch that
only train mode takes leaves the addresses behind it alone. Where that is not enough (one layer object several times in
a `Sequential`), the calls further back on the value's way count as well.
"""

from collections.abc import Container
from dataclasses import dataclass

from torch import Tensor

from qat.inject.calls import Operand, ValueId

#: Calls on a value's way that are remembered, and so the furthest that an address looks back.
LONGEST_WAY = 32

#: What identifies a call: its place in the code, its operation, and where its operands come from.
Key = tuple


@dataclass(frozen=True)
class Origin:
    """Where a tensor, or the operands of a call, come from.

    layer: the parameter or buffer that was used last on the way. way: keys of the calls on the way, the last one at the
    end. value: of a call, its operand that was made last. named: of a call, the parameters and buffers among its
    operands. constants: the same, and those that its other constants were made of. made: a running number.
    """

    layer: str = ""
    way: tuple[Key, ...] = ()
    value: ValueId | None = None
    named: tuple[str, ...] = ()
    constants: tuple[str, ...] = ()
    made: int = 0


class Origins:
    """The origins of the tensors of one forward, values and what is made of parameters alike.

    reach: key of a call -> how many calls further back tell it apart, where one place does not.
    """

    def __init__(self, reach: dict[Key, int]):
        self.reach = reach
        self.known: dict[int, Origin] = {}
        self.alive: list[Tensor] = []  # ids stay unique only while their tensors live

    def of(self, operands: list[Operand], tensors: list[Tensor], integral: Container[int] = ()) -> Origin:
        """The origin of a call with these operands: of the one made last, of the network's values if it reads any.

        integral: ids of the values that integers among the inputs decide alone: a mask says nothing of what it masks.
        """
        origins = [self.known.get(id(tensor), Origin()) for tensor in tensors]
        pairs = list(zip(operands, origins, strict=True))
        named = tuple(operand.constant for operand in operands if operand.constant)
        constants = tuple(
            operand.constant or origin.layer for operand, origin in pairs
            if operand.constant or (operand.value is None and origin.layer)
        )  # fmt: skip
        values = [index for index, operand in enumerate(operands) if operand.value is not None]
        real = [index for index in values if id(tensors[index]) not in integral]
        candidates = [pairs[index] for index in real or values] or pairs
        if not candidates:
            return Origin()
        operand, latest = max(candidates, key=lambda pair: pair[1].made)
        return Origin(latest.layer, latest.way, operand.value, named, constants)

    def way_behind(self, key: Key, origin: Origin) -> tuple[Key, ...]:
        """As much of the way as tells the calls of `key` apart."""
        reach = self.reach.get(key, 0)
        return origin.way[-reach:] if reach else ()

    def remember(self, results: list[Tensor], origin: Origin, key: Key | None = None) -> None:
        """Note where the results of a call come from. key: of the call, None if it moves values only."""
        # a layer is known by its own parameters, before those that a first state was made of
        layer = next(iter((*origin.named, *origin.constants)), origin.layer)
        way = origin.way if key is None else (*origin.way, key)[-LONGEST_WAY:]
        for result in results:
            self.known[id(result)] = Origin(layer, way, made=len(self.alive) + 1)
            self.alive.append(result)
