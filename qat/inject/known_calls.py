"""The calls of a recording, told apart: which executions of one place in the code are one call, under one address."""

from collections.abc import Callable, Sequence
from types import FrameType

from torch import nn

from qat.errors import PreparationError
from qat.inject import addresses
from qat.inject.addresses import START
from qat.inject.calls import Call, Recording
from qat.inject.operations import Kind, Operation
from qat.inject.origins import LONGEST_WAY, Key, Origin, Origins
from qat.inject.pointwise import PLAIN
from qat.inject.recurrent import RECURRENCES

#: Operators whose bodies torch compiles by itself, and runs as values decide.
_BRANCHING = frozenset({"cond", "while_loop"})


class KnownCalls:
    """Finds the call that an execution belongs to, or adds one to the recording.

    reach: key of a call -> how many calls further back on the way of its operands tell it apart.
    """

    def __init__(self, module: nn.Module, recording: Recording, reach: dict[Key, int]):
        self.recording = recording
        self.reach = reach
        self.leaves = {name: not list(part.children()) for name, part in module.named_modules()}
        self.types = {
            name: tuple(base.__name__ for base in type(part).__mro__[:-2]) for name, part in module.named_modules()
        }
        self.addresses: dict[tuple, int] = {}
        self.keys: dict[int, Key] = {}  # address -> what identifies its calls
        self.places: dict[int, tuple] = {}  # address -> what of that the code itself shows
        self.layers: dict[str, int] = {}  # name -> calls that go by it, numbered from the second on

    def at(
        self, operation: Operation, kind: Kind, frame: FrameType, previous: int, modules: tuple[str, ...],
        origin: Origin, origins: Origins, *, opened: Sequence[Callable],
    ) -> Call:  # fmt: skip
        """The call of `operation` that runs at `frame` behind the address `previous`.

        modules: paths of the modules that run, the innermost last. origin: of its operands, one of `origins`. opened:
        the functions of several computations that it is part of, whose name the layer then takes.
        """
        site = addresses.site_of(frame)
        place = (modules, site, operation.name, origin.named)
        followed = None if kind is Kind.PASS else self.recording.transitions.steps.get((previous, site))
        if followed is not None and self.places[followed] == place:
            return self.recording.calls[followed]  # only the way here differs, which the network's forward cannot see
        # what moves a value is told apart by that value, a layer by its parameters, the rest by the layer before it
        # and the first step of a recurrence is as the others, whatever parameters its first state is made of
        constants = origin.named if any(function in RECURRENCES for function in opened) else origin.constants
        known_as = constants or origin.layer
        if operation.name in PLAIN and not origin.named:  # one parameter may be cut into constants for many layers
            known_as = (*constants, origin.layer)
        key = (*place, origin.value if kind is Kind.PASS else known_as)
        known_by = (key, origins.way_behind(key, origin))
        self._refuse_unfollowed(operation, frame)
        if known_by not in self.addresses:
            address = self.addresses[known_by] = len(self.addresses)
            self.keys[address], self.places[address] = key, place
            self.recording.calls[address] = self._new(address, operation, kind, modules[-1], frame, bool(opened))
        return self.recording.calls[self.addresses[known_by]]

    def look_further_back(self, address: int) -> bool:
        """Split `address` next time by more of its operands' way; False where nothing more is known of it."""
        if address == START:
            return False
        key = self.keys[address]
        self.reach[key] = 2 * self.reach.get(key, 0) or 1
        return self.reach[key] <= LONGEST_WAY

    def _new(self, address: int, operation: Operation, kind: Kind, path: str, frame: FrameType, opened: bool) -> Call:
        owned = self.leaves[path] and path
        base = path if owned and not opened else ".".join(filter(None, (path, operation.name)))
        count = self.layers[base] = self.layers.get(base, 0) + 1
        return Call(
            address=address,
            operation=operation,
            kind=kind,
            layer=base if count == 1 else f"{base}#{count}",
            module=path,
            types=self.types[path] if owned else (operation.name,),
            source=addresses.source_of(frame),
        )

    def _refuse_unfollowed(self, operation: Operation, frame: FrameType) -> None:
        """Raise `PreparationError` for a call whose place cannot be found again when the network runs."""
        if operation.name in _BRANCHING:
            raise PreparationError(
                f"torch.{operation.name} at {addresses.source_of(frame)} goes a way that depends on the inputs, and "
                "its branches would pass unquantized; compute all of them and choose with torch.where, or quantize a "
                "sub-network on one side of it (module=)."
            )
        if addresses.inside_compiled(frame):
            raise PreparationError(
                f"{operation.name} at {addresses.source_of(frame)} runs in a part of the network that was given to "
                "torch.compile, where it would pass unquantized; take torch.compile off that part, and compile the "
                "prepared network as a whole."
            )
        checkpoint = addresses.inside_checkpoint(frame)
        if checkpoint == "reentrant":
            raise PreparationError(
                f"{addresses.source_of(frame)} runs under reentrant activation checkpointing, whose recomputation "
                "cannot be followed; pass use_reentrant=False to torch.utils.checkpoint.checkpoint."
            )
        if checkpoint is not None:
            self.recording.checkpointed = True
