"""Which calls run inside the kernel of another: pure functions of a recording.

Two ways. A batch norm, relu or clamp behind a computation runs at the end of its kernel (`heads`). And calls that make
of one value, element by element, another are one table together, with one rounding at its end (`regions`).
"""

import dataclasses
from collections import Counter
from collections.abc import Container, Mapping
from dataclasses import dataclass

from qat.inject.calls import Call, Recording, Slot, ValueId
from qat.inject.coverage import has_statistics
from qat.inject.flow import Flow, is_identity
from qat.inject.masks import READERS
from qat.inject.operations import COMPUTING, Kind
from qat.inject.pointwise import NONLINEAR, PLAIN
from qat.inject.weighted import weighted_form
from qat.inject.written_norms import NormStep, written_norms

#: Products of two values, whose kernels multiply the result by a number for nothing.
_PRODUCTS = frozenset({"matmul", "bmm", "einsum"})


@dataclass(frozen=True)
class Region:
    """What one call of a region reads. root: the value the region is a function of.

    roots: slots that hold it. inner: slots that hold the unrounded result of another call of the region, and its
    address. ends: whether the result leaves the region, and is rounded.
    """

    root: ValueId
    roots: tuple[Slot, ...]
    inner: tuple[tuple[Slot, int], ...]
    ends: bool


class Fusion:
    """Heads and regions of a recording. quantized: address -> whether the rules leave a call quantized.

    head: address of a fused call -> address of the computation whose kernel it runs in. regions: by address, also of
    the steps of norms that are written out. masks: addresses of calls that leave out scores of a softmax. mask_makers:
    of calls that make those masks.
    """

    def __init__(self, recording: Recording, quantized: Mapping[int, bool]):
        self.calls = recording.calls
        self.quantized = quantized
        self.outputs = {*recording.outputs, *recording.compared}
        reading = [call for call in self.calls.values() if call.produces or call.kind is not Kind.PASS]  # not a size
        self.consumers = Counter(value for call in reading for value in set(call.values()))
        self.consumers.update([*recording.outputs, *recording.compared])
        self.head: dict[int, int] = {}
        self.regions: dict[int, Region | NormStep] = {}
        self.flow = Flow(self.calls, self.outputs)
        self._find_heads(lambda producer: not producer.pointwise)
        self.masks = {
            call.address for call in self.calls.values()
            if call.masks and self._is_read_as_mask(("call", call.address, 0))
        }  # fmt: skip
        self.mask_makers = self._find_mask_makers()
        norms = written_norms(self.flow, self._may_be_step)
        self.regions = {**_Regions(self, norms).found, **norms}
        self.calls = {
            address: dataclasses.replace(call, kind=Kind.COMPUTE)
            if call.kind is Kind.JOIN and address in self.regions  # the larger of two functions of one value is another
            else call
            for address, call in self.calls.items()
        }
        self.flow = Flow(self.calls, self.outputs)
        self._find_heads(lambda producer: producer.address not in self.regions)

    def chain(self, head: int) -> list[int]:
        """Addresses of the computation at `head` and of what is fused behind it, in order."""
        return [head, *(address for address, start in self.head.items() if start == head)]

    def producer(self, value: ValueId) -> Call | None:
        """The call that makes a value, None for an input."""
        return self.flow.producer(value)

    def is_of_integers(self, value: ValueId) -> bool:
        """Whether integers among the inputs decide a value alone, as those of a mask do."""
        producer = self.producer(value)
        return producer is not None and producer.of_integers

    def is_exempt(self, call: Call) -> bool:
        """Whether a call needs no integer form of its own."""
        joins_masks = call.kind is Kind.JOIN and call.of_integers
        part = call.address in self.regions or call.address in self.masks or call.address in self.mask_makers
        return part or joins_masks

    def _find_mask_makers(self) -> set[int]:
        """Calls of integers that nothing reads but masks: what they make has no grid, however large its numbers."""
        makers: set[int] = set()
        for call in reversed(self.calls.values()):
            readers = self.flow.readers.get(("call", call.address, 0), ())
            leads_to_masks = all(reader.address in self.masks or reader.address in makers for reader in readers)
            if call.of_integers and call.produces == 1 and readers and leads_to_masks:
                makers.add(call.address)
        return makers

    def _may_be_step(self, call: Call) -> bool:
        return self.quantized[call.address] and call.produces == 1 and not call.alternating()

    def _is_read_as_mask(self, value: ValueId, before: tuple[ValueId, ...] = ()) -> bool:
        """Whether nothing but softmax reads the value, and masks upon it.

        before: values whose readers led here, where a line in a loop masks what it masked.
        """
        if value in before:
            return True
        readers = self.flow.readers.get(value, ()) if value not in self.outputs else ()
        for reader in readers:
            passes = reader.masks or is_identity(reader)
            if reader.operation.name not in READERS:
                if not passes or not self._is_read_as_mask(("call", reader.address, 0), (*before, value)):
                    return False
        return bool(readers)

    def _find_heads(self, may_lead) -> None:
        for call in self.calls.values():
            if call.address in self.head or call.address in self.regions or not self.quantized[call.address]:
                continue
            if call.kind is not Kind.FUSE and not call.scales:
                continue
            head = self._head_of(call, may_lead)
            if head is not None:
                self.head[call.address] = head

    def _head_of(self, call: Call, may_lead) -> int | None:
        """Address of the computation into whose kernel this call is fused, None if it stands alone."""
        values = set(call.values())
        if len(values) != 1:
            return None
        (value,) = values
        producer = self.flow.producer(value)
        if producer is None or self.consumers[value] != 1:
            return None
        if call.operation.name == "batch_norm":
            foldable = channels_second(producer) and self.quantized[producer.address] and has_statistics(call)
            return producer.address if foldable else None
        if call.scales:
            is_product = producer.operation.name in _PRODUCTS and weighted_form(producer) is None
            return producer.address if is_product and self.quantized[producer.address] else None
        if producer.address in self.head:
            return self.head[producer.address]
        if producer.kind in COMPUTING and self.quantized[producer.address] and may_lead(producer):
            return producer.address
        return None


def channels_second(call: Call) -> bool:
    """Whether a layer's channels lie where a batch norm looks for them: those of a linear layer may be last."""
    form = weighted_form(call)
    return form is not None and form.channels + len(call.output_shape) == 1


class _Regions:
    """The largest regions, found by giving up, from all pointwise calls, those that do not hold together."""

    def __init__(self, fusion: Fusion, taken: Container[int]):
        self.fusion = fusion
        self.calls = fusion.calls
        self.readers = fusion.flow.readers
        self.eligible = {
            call.address: call for call in self.calls.values()
            if call.pointwise and call.produces == 1 and call.address not in fusion.head
            and call.address not in fusion.masks and call.address not in fusion.mask_makers
            and call.address not in taken
            and (call.kind in (Kind.COMPUTE, Kind.FUSE) or call.operation.name in NONLINEAR)
            and fusion.quantized[call.address] and not call.alternating()
        }  # fmt: skip
        self.inner = set(self.eligible)  # addresses whose results stay unrounded
        self._settle()
        self.found = {address: self._region(call) for address, call in self.eligible.items()}
        self._drop_plain()

    def _settle(self) -> None:
        changed = True
        while changed:
            changed = False
            self.roots: dict[int, ValueId | tuple[int, Slot]] = {}
            for address, call in list(self.eligible.items()):
                roots = self._roots_of(call)
                if len(roots) == 1:
                    (self.roots[address],) = roots
                else:
                    del self.eligible[address]
                    self.inner.discard(address)
                    changed = True
            for address in list(self.inner):
                if not self._stays_inside(("call", address, 0), self.roots.get(address)):
                    self.inner.discard(address)
                    changed = True

    def _roots_of(self, call: Call) -> set:
        """What a call is a function of. What a loop carries round in one slot is one thing, and no other slot's."""
        roots = set()
        for slot in call.operands:
            sources = self._sources(call, slot)
            roots |= {(call.address, slot)} if len(sources) > 1 else {self._root(source) for source in sources}
        return roots

    def _sources(self, call: Call, slot: Slot) -> set[ValueId]:
        """The values that a call has in one slot: several where a loop carries them round."""
        operands = call.operands[slot]
        return {self.fusion.flow.source(operand.value) for operand in operands if operand.value is not None}

    def _is_carried(self, value: ValueId, reader: Call) -> bool:
        """Whether the reader has the value where a loop gives it another one as well."""
        source = self.fusion.flow.source(value)
        found = (self._sources(reader, slot) for slot in reader.operands)
        return any(source in sources and len(sources) > 1 for sources in found)

    def _root(self, value: ValueId):
        if value[0] == "call" and value[1] in self.inner and value[1] in self.roots:
            return self.roots[value[1]]
        return value

    def _stays_inside(self, value: ValueId, root) -> bool:
        """Whether everything that reads the value belongs to the region of `root`."""
        if value in self.fusion.outputs or value not in self.readers:
            return False
        for reader in self.readers[value]:
            if self._is_carried(value, reader):
                return False
            if is_identity(reader):
                if not self._stays_inside(("call", reader.address, 0), root):
                    return False
            elif reader.address not in self.eligible or self.roots.get(reader.address) != root:
                return False
        return True

    def _region(self, call: Call) -> Region:
        root, roots, inner = None, [], []
        for slot in call.operands:
            source = min(self._sources(call, slot), default=None, key=str)
            if source is None:
                continue
            if source[0] == "call" and source[1] in self.inner:
                inner.append((slot, source[1]))
                root = self.roots[source[1]]
            else:
                roots.append(slot)
                root = source
        return Region(self._value_of(root), tuple(roots), tuple(inner), call.address not in self.inner)

    def _value_of(self, root) -> ValueId:
        """A value of a root: one of those that a loop carries round, which all lie on one grid."""
        if root[0] in ("call", "input"):
            return root
        address, slot = root
        return min(self._sources(self.calls[address], slot), key=str)

    def _drop_plain(self) -> None:
        """Leave a single sum, product or clamp to the kernels of their own."""
        parent = {address: address for address in self.found}

        def top(address: int) -> int:
            while parent[address] != address:
                address = parent[address]
            return address

        for address, region in self.found.items():
            for _, source in region.inner:
                parent[top(source)] = top(address)
        members: dict[int, list[Call]] = {}
        for address in self.found:
            members.setdefault(top(address), []).append(self.calls[address])
        for calls in members.values():
            computing = [call for call in calls if call.kind is Kind.COMPUTE]
            if len(computing) <= 1 and all(call.operation.name in PLAIN for call in calls) and _is_chain(calls):
                for call in calls:
                    del self.found[call.address]


def _is_chain(calls: list[Call]) -> bool:
    """Whether each call reads one value, and a computation comes first: what `heads` can fuse."""
    single = all(sum(any(o.value for o in operands) for operands in call.operands.values()) == 1 for call in calls)
    return single and all(call.kind is Kind.FUSE for call in calls[1:])
