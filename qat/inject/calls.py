"""What a recording of a network is made of: calls, their operands, and the values that flow between them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from qat.inject.addresses import Transitions
from qat.inject.operations import Kind, Operation

#: A value of the network: ("input", path) or ("call", address, index of the output).
ValueId = tuple

#: Where a tensor stands in the arguments of a call: ("args", 0), ("args", 0, 1) for a list, ("kwargs", "weight").
Slot = tuple


@dataclass(frozen=True)
class Operand:
    """One floating-point tensor among the arguments of a call.

    value: the value of the network it is, None for a constant (a parameter, a buffer, or made from those).
    constant: name of the parameter or buffer, "" for a derived constant, None for a value.
    shape: that it broadcasts from; recorded_shape: that it had, where rows of a derived constant repeat.
    """

    slot: Slot
    value: ValueId | None
    constant: str | None
    shape: tuple[int, ...]
    recorded_shape: tuple[int, ...] = ()


@dataclass
class Call:
    """Every execution of one address, united: a loop runs it several times.

    layer: the name shown to users, unique. types: class names of the innermost module and its bases, or the
    operation's. source: file:line. produces: number of floating-point tensors that come out and depend on the inputs.
    in_place: writes into its first operand. never_negative: of the result. other_dtypes: of operands that are not
    floating-point, masks and indices. reason: why its arguments have no integer form, None where they have one.
    pointwise: whether each element of the result is a function of the same element of its values alone.
    scales: whether it multiplies its value by a positive number. masks: whether it leaves out scores of a softmax.
    squares: whether it squares its value. averages_last: whether it is a mean over last dimensions, which stay as 1.
    of_integers: whether integers among the inputs, such as a mask, decide its result alone. island_reason: why a rule
    cannot leave it in float as an island, None where it can.
    """

    address: int
    operation: Operation
    kind: Kind
    layer: str
    module: str
    types: tuple[str, ...]
    source: str
    operands: dict[Slot, set[Operand]] = field(default_factory=dict)
    produces: int = 0
    output_shape: tuple[int, ...] = ()
    in_place: bool = False
    never_negative: bool = False
    other_dtypes: set[torch.dtype] = field(default_factory=set)
    reason: str | None = None
    pointwise: bool = True
    scales: bool = True
    masks: bool = True
    squares: bool = True
    averages_last: bool = True
    of_integers: bool = True
    island_reason: str | None = None

    def values(self) -> Iterator[ValueId]:
        """The values this call reads."""
        for operands in self.operands.values():
            for operand in sorted(operands, key=str):
                if operand.value is not None:
                    yield operand.value

    def alternating(self) -> dict[Slot, ValueId]:
        """Slots that hold a constant in one run and a value in another (the first state of a loop), and that value."""
        return {
            slot: next(operand.value for operand in operands if operand.value is not None)
            for slot, operands in self.operands.items() if len({operand.value is None for operand in operands}) > 1
        }  # fmt: skip

    def constants(self) -> Iterator[Operand]:
        """The constant operands."""
        for operands in self.operands.values():
            yield from (operand for operand in sorted(operands, key=str) if operand.value is None)


@dataclass
class Recording:
    """Calls by address, the automaton of their order, and the values that come in and go out.

    ways: training mode -> addresses of the counted calls in the order they ran, of every forward that was recorded; the
    first is that of the example inputs. inputs: path -> shape of the real ones. given: paths of all inputs. outputs:
    values returned. returned: where in the eval forward's result they are, a path of keys for each. unquantized: those
    of them that no operation on values made. no_tensors: those that are no tensors, with their type.
    compared: values of which a mask or an index is made in eval mode.
    looks: source lines where the eval forward looks at the contents of real values, and what it does there;
    looks_at_codes: of ids and masks. looked_at: paths of the inputs that those contents depend on.
    reads: sites where the eval forward reads numbers of tensors -> whether those depend on the inputs.
    """

    calls: dict[int, Call] = field(default_factory=dict)
    transitions: Transitions = field(default_factory=Transitions)
    ways: dict[bool, list[tuple[int, ...]]] = field(default_factory=dict)
    inputs: dict[str, tuple[int, ...]] = field(default_factory=dict)
    given: tuple[str, ...] = ()
    outputs: list[ValueId] = field(default_factory=list)
    returned: tuple[tuple[str, ...], ...] = ()
    unquantized: tuple[tuple[str, ...], ...] = ()
    no_tensors: tuple[tuple[tuple[str, ...], str], ...] = ()
    compared: list[ValueId] = field(default_factory=list)
    checkpointed: bool = False
    looks: list[str] = field(default_factory=list)
    looks_at_codes: list[str] = field(default_factory=list)
    looked_at: frozenset[str] = frozenset()
    reads: dict[int, bool] = field(default_factory=dict)

    def add_way(self, training: bool, addresses: Iterable[int]) -> None:
        """Note the order of the counted calls of one forward."""
        self.ways.setdefault(training, []).append(tuple(addresses))

    def add_compared(self, values: Iterable[ValueId]) -> None:
        """Note values of which a mask or an index is made."""
        self.compared.extend(value for value in values if value not in self.compared)

    @property
    def sequences(self) -> dict[bool, tuple[int, ...]]:
        """Training mode -> the order that compiled code follows, which cannot look at its own frames.

        It cannot look at the contents of a mask either, and leaves none out: the way of the most calls is its own.
        """
        return {training: max(ways, key=len) for training, ways in self.ways.items()}

    def made(self, training: bool) -> frozenset[int]:
        """The counted calls that some forward of a mode makes."""
        return frozenset().union(*self.ways[training])

    def always_made(self, training: bool) -> frozenset[int]:
        """The counted calls that every forward of a mode makes."""
        first, *others = self.ways[training]
        return frozenset(first).intersection(*others)


def is_counted(kind: Kind, args: tuple, kwargs: dict) -> bool:
    """Whether a call takes part in addressing: it computes or joins, and has a floating-point operand or makes one."""
    if kind is Kind.PASS or kind is Kind.IGNORE:
        return False
    if kind is Kind.CAST:
        return True
    for argument in args:
        if isinstance(argument, Tensor):
            if argument.is_floating_point():
                return True
        elif isinstance(argument, tuple | list) and any(
            isinstance(x, Tensor) and x.is_floating_point() for x in argument
        ):
            return True
    return any(isinstance(argument, Tensor) and argument.is_floating_point() for argument in kwargs.values())


def makes_real(kind: Kind, args: tuple, kwargs: dict, result) -> bool:
    """Whether a call that is not counted makes real values of integers, as `1.0 - mask` does, and so is to be."""
    reads = next((True for _ in tensor_slots(args, kwargs)), False)
    return kind is Kind.COMPUTE and reads and bool(output_tensors(result))


def tensor_slots(args: tuple, kwargs: dict) -> Iterator[tuple[Slot, Tensor]]:
    """Every tensor among the arguments of a call, with its slot."""
    for index, argument in enumerate(args):
        if isinstance(argument, Tensor):
            yield ("args", index), argument
        elif isinstance(argument, tuple | list):
            for position, entry in enumerate(argument):
                if isinstance(entry, Tensor):
                    yield ("args", index, position), entry
    for name, argument in kwargs.items():
        if isinstance(argument, Tensor):
            yield ("kwargs", name), argument
        elif isinstance(argument, tuple | list):
            for position, entry in enumerate(argument):
                if isinstance(entry, Tensor):
                    yield ("kwargs", name, position), entry


def output_tensors(result) -> list[Tensor]:
    """The floating-point tensors a call returned, in order."""
    if isinstance(result, Tensor):
        return [result] if result.is_floating_point() else []
    if isinstance(result, tuple | list):
        return [entry for entry in result if isinstance(entry, Tensor) and entry.is_floating_point()]
    return []


def substitute(replaced: dict[int, Tensor], args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    """Arguments with tensors that were written in place replaced by what was written."""

    def current(leaf):
        while id(leaf) in replaced:
            leaf = replaced[id(leaf)]
        return leaf

    def visit(argument):
        if isinstance(argument, Tensor):
            return current(argument)
        if type(argument) in (tuple, list):
            return type(argument)(current(entry) for entry in argument)
        return argument

    return tuple(visit(argument) for argument in args), {name: visit(argument) for name, argument in kwargs.items()}


def has_slot(args: tuple, kwargs: dict, slot: Slot) -> bool:
    """Whether the call was given an argument at `slot`."""
    return slot[1] < len(args) if slot[0] == "args" else slot[1] in kwargs


def operand_at(args: tuple, kwargs: dict, slot: Slot):
    """The argument at `slot`."""
    value = args[slot[1]] if slot[0] == "args" else kwargs[slot[1]]
    return value[slot[2]] if len(slot) == 3 else value


def with_operand(args: tuple, kwargs: dict, slot: Slot, value) -> tuple[tuple, dict]:
    """The arguments with `value` at `slot`."""
    if len(slot) == 3:
        outer = args[slot[1]] if slot[0] == "args" else kwargs[slot[1]]
        value = type(outer)(value if index == slot[2] else entry for index, entry in enumerate(outer))
    if slot[0] == "kwargs":
        return args, {**kwargs, slot[1]: value}
    return (*args[: slot[1]], value, *args[slot[1] + 1 :]), kwargs
