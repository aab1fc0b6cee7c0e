"""Who makes and who reads the values of a recording."""

from collections.abc import Collection, Container, Mapping

from qat.inject.calls import Call, ValueId
from qat.inject.operations import Kind
from qat.inject.pointwise import IDENTITIES


class Flow:
    """Producers and readers of values. outputs: values that leave the network, which nobody inside reads alone."""

    def __init__(self, calls: Mapping[int, Call], outputs: Collection[ValueId]):
        self.calls = calls
        self.outputs = frozenset(outputs)
        self.readers: dict[ValueId, list[Call]] = {}
        for call in reversed(calls.values()):
            result = ("call", call.address, 0)
            if call.kind is Kind.PASS and not call.produces:
                continue  # looked at an attribute
            if is_identity(call) and result not in self.readers and result not in self.outputs:
                continue  # gave back its own operand, which others read
            for value in set(call.values()):
                self.readers.setdefault(value, []).append(call)
        for readers in self.readers.values():
            readers.reverse()

    def producer(self, value: ValueId) -> Call | None:
        """The call that makes a value, None for an input."""
        return self.calls[value[1]] if value[0] == "call" else None

    def source(self, value: ValueId) -> ValueId:
        """The value that `value` is, seen through what leaves it as it is."""
        producer = self.producer(value)
        while producer is not None and is_identity(producer):
            value = next(producer.values(), None) or value
            following = self.producer(value)
            if following is producer:
                break
            producer = following
        return value

    def maker(self, value: ValueId) -> Call | None:
        """The call that computes a value, seen through what leaves it as it is."""
        return self.producer(self.source(value))

    def only_reader(self, call: Call) -> Call | None:
        """The one call that computes with the result of `call`; None for several, or if it leaves the network."""
        value = ("call", call.address, 0)
        while value not in self.outputs and len(readers := self.readers.get(value, ())) == 1:
            (reader,) = readers
            if not is_identity(reader):
                return reader
            value = ("call", reader.address, 0)
        return None


def with_calls_in_order(calls: Mapping[int, Call], added: Container[int]) -> dict[int, Call]:
    """The calls, those at the addresses `added` in front of the first that reads what they make.

    They come from a forward that was recorded after the others and takes a way round some of their calls.
    """
    ordered: dict[int, Call] = {}
    entered: set[int] = set()
    for start in calls:
        rest = [start]
        while rest:
            address = rest[-1]
            if address in entered:
                ordered.setdefault(rest.pop(), calls[address])
                continue
            entered.add(address)
            makers = {value[1] for value in calls[address].values() if value[0] == "call"}
            rest.extend(sorted((maker for maker in makers - entered if maker in added), reverse=True))
    return ordered


def is_identity(call: Call) -> bool:
    """Whether a call leaves its value as it is, where it is."""
    return call.kind is Kind.PASS and call.operation.name in IDENTITIES
