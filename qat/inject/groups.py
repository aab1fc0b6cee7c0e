"""Which values of a network share one grid, and where its values come from: pure functions of a recording."""

from collections.abc import Container, Iterable

from qat.inject.calls import Recording, ValueId
from qat.inject.operations import Kind


class Groups:
    """Union-find over values: those of a group share one grid."""

    def __init__(self):
        self.parent: dict[ValueId, ValueId] = {}

    def find(self, value: ValueId) -> ValueId:
        """The value that stands for the group of `value`."""
        root = value
        while self.parent.get(root, root) != root:
            root = self.parent[root]
        while self.parent.get(value, value) != root:
            self.parent[value], value = root, self.parent[value]
        return root

    def unite(self, first: ValueId, second: ValueId) -> None:
        """Make one group of the groups of both."""
        self.parent[self.find(second)] = self.find(first)


def groups_of(recording: Recording, masks: Container[int]) -> Groups:
    """The groups of a network: what only moves or joins values keeps their grid, and so does what masks scores.

    masks: addresses of the calls that leave out scores of a softmax. Values that are joined for nobody (the last states
    of a recurrence's layers) have nothing in common.
    """
    groups, read = Groups(), _read_moves(recording)
    for call in recording.calls.values():
        for operands in call.operands.values():  # one place in the code, several values: a loop
            values = [operand.value for operand in operands if operand.value]
            for value in values[1:]:
                groups.unite(values[0], value)
        if call.kind is Kind.PASS or (call.kind is Kind.JOIN and call.address in read) or call.address in masks:
            values = [value for value in call.values() if call.address not in masks or not _is_mask(recording, value)]
            values += [("call", call.address, index) for index in range(call.produces)]
            for value in values[1:]:
                groups.unite(values[0], value)
    return groups


def _is_mask(recording: Recording, value: ValueId) -> bool:
    """Whether integers among the inputs decide a value alone."""
    return value[0] == "call" and recording.calls[value[1]].of_integers


def _read_moves(recording: Recording) -> set[int]:
    """Addresses of the calls that only move values about whose results are computed with, or leave the network."""
    moving = {address: call for address, call in recording.calls.items() if call.kind in (Kind.PASS, Kind.JOIN)}
    rest = [value for address, call in recording.calls.items() if address not in moving for value in call.values()]
    rest += [*recording.outputs, *recording.compared]
    read: set[int] = set()
    while rest:
        kind, *place = rest.pop()
        if kind == "call" and place[0] in moving and place[0] not in read:
            read.add(place[0])
            rest.extend(moving[place[0]].values())
    return read


def origins_of(recording: Recording, values: Iterable[ValueId]) -> set[ValueId]:
    """The inputs and results of computations that `values` consist of, seen through what only moves values."""
    origins, seen, rest = set(), set(), list(values)
    while rest:
        value = rest.pop()
        producer = recording.calls[value[1]] if value[0] == "call" else None
        if producer is None or producer.kind not in (Kind.PASS, Kind.JOIN):
            origins.add(value)
        elif producer.address not in seen:
            seen.add(producer.address)
            rest.extend(producer.values())
    return origins
