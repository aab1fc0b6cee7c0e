"""Where quantizers go: a pure function from a recording to a plan.

Quantizers sit on values, at their producers, and only where an integer operand is demanded. Operations that move values
(PASS, JOIN) unite them in one group with one grid; operations that run inside the kernel before them (FUSE) get no
quantizer in front; everything else (COMPUTE) demands quantized operands, and the network's outputs are demanded too.
"""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

from qat.errors import PreparationError
from qat.inject.calls import Call, Operand, Recording, Slot, ValueId
from qat.inject.coverage import refuse_returned, refuse_unsupported
from qat.inject.fusing import Fusion
from qat.inject.operations import COMPUTING, NORMS, Kind
from qat.inject.weighted import WeightedForm, weighted_form
from qat.spec import QuantConfig, QuantSpec
from qat.targets import Target


@dataclass(frozen=True)
class Site:
    """One quantizer. layer: the layer whose weight or output it quantizes. shares: every place on its grid.

    shape: of one recorded tensor. axis: output channel axis of a weight, None for per tensor.
    """

    name: str
    role: str
    spec: QuantSpec
    layer: str
    shares: tuple[str, ...]
    shape: tuple[int, ...]
    axis: int | None = None
    nonnegative: bool = False


@dataclass(frozen=True)
class Action:
    """What to do at one address.

    weights: constant operands to quantize, with the quantizer's name. outputs: quantizer of each output, None for none.
    bias: slot of the bias, where it is on the accumulator's grid of `input_quantizer` times `weight_quantizer`.
    batch_norm: address of the batch norm folded into this call. folded_into: for that batch norm, the call's address.
    operands: quantizers of the operands, by slot. head: address of the computation whose result this is, where a
    quantizer stands at the end of it and what is fused behind it.
    in_place: run out of place. form: where a layer has its weight. scores: slot of the scores that this call masks.
    """

    layer: str
    kind: Kind
    weights: tuple[tuple[Slot, str], ...] = ()
    outputs: tuple[str | None, ...] = ()
    bias: Slot | None = None
    input_quantizer: str | None = None
    weight_quantizer: str | None = None
    batch_norm: int | None = None
    folded_into: int | None = None
    operands: tuple[tuple[Slot, str], ...] = ()
    head: int | None = None
    in_place: bool = False
    region: "RegionAction | None" = None
    form: WeightedForm | None = None
    scores: Slot | None = None

    @property
    def idle(self) -> bool:
        """Whether the call just runs."""
        quantizes = self.weights or any(self.outputs) or self.batch_norm is not None or self.head is not None
        return not quantizes and not self.in_place and self.region is None and self.scores is None


@dataclass(frozen=True)
class RegionAction:
    """What a call of a region of pointwise functions reads. root: quantizer of the value that the region is a table of.

    roots: slots that hold that value. inner: slots that hold the result of another call of the region, and its address.
    """

    root: str
    roots: tuple[Slot, ...]
    inner: tuple[tuple[Slot, int], ...]


@dataclass(frozen=True)
class Plan:
    """Every quantizer and what to do at every address. inputs: input path -> quantizer. float_layers: left in float."""

    sites: dict[str, Site]
    actions: dict[int, Action]
    inputs: dict[str, str]
    float_layers: tuple[str, ...] = ()


def _reads(call: Call, slot: Slot) -> bool:
    return any(operand.value is not None for operand in call.operands[slot])


class _Groups:
    """Union-find over values: those of a group share one grid."""

    def __init__(self):
        self.parent: dict[ValueId, ValueId] = {}

    def find(self, value: ValueId) -> ValueId:
        root = value
        while self.parent.get(root, root) != root:
            root = self.parent[root]
        while self.parent.get(value, value) != root:
            self.parent[value], value = root, self.parent[value]
        return root

    def unite(self, first: ValueId, second: ValueId) -> None:
        self.parent[self.find(second)] = self.find(first)


def make_plan(recording: Recording, config: QuantConfig, target: Target | None) -> Plan:
    """Decide every quantizer of a network.

    Raises `PreparationError` where there is nothing to quantize or the target has no integer form of an operation, and
    `ConfigurationError` for a rule that matches nothing.
    """
    if target is not None:
        target.check(config)
    return _Planner(recording, config, target).plan()


class _Planner:
    def __init__(self, recording: Recording, config: QuantConfig, target: Target | None):
        self.recording = recording
        self.config = config
        self.target = target
        self.calls = recording.calls
        self.evaluated = frozenset(recording.sequences[False])
        self.quantized = {
            call.address: config.quantizes(call.layer, call.types) and call.produces > 0 and self._evaluated(call)
            for call in self.calls.values()
        }
        fusion = Fusion(recording, self.quantized)
        self.head, self.regions, self.masks, self.chain = fusion.head, fusion.regions, fusion.masks, fusion.chain

    def _evaluated(self, call: Call) -> bool:
        """Whether eval mode makes the call: what only training adds, such as dropped paths, is in no integer file."""
        return call.kind is Kind.PASS or call.address in self.evaluated

    def plan(self) -> Plan:
        self._check_rules()
        if self.target is not None:
            refuse_returned(self.recording, self.target)
            calls = {address: call for address, call in self.calls.items() if self._evaluated(call)}
            refuse_unsupported(calls, self.quantized, self.target, {*self.regions, *self.masks})
        self.edges = self._edges()
        groups = self._unite()
        demanded = {
            groups.find(value)
            for call in self.calls.values() if self._demands(call) for value in self._demanded_values(call)
        }  # fmt: skip
        demanded |= {groups.find(value) for value in self.recording.outputs if self._made_by_quantized(value)}
        self.sites: dict[str, Site] = {}
        quantizer_of = self._activation_sites(groups, demanded)
        actions = {
            call.address: self._action(call, groups, quantizer_of)
            for call in self.calls.values()
            if call.kind is not Kind.PASS
        }
        if not any(site.role == "weight" for site in self.sites.values()):
            raise PreparationError(
                "there is nothing to quantize: the network calls no convolution, linear or other layer with weights "
                "that the rules leave quantized; pass the network itself as module=, or relax the rules."
            )
        inputs = {
            path: quantizer_of[groups.find(("input", path))]
            for path in self.recording.inputs
            if groups.find(("input", path)) in quantizer_of
        }
        float_layers = tuple(
            call.layer for call in self.calls.values()
            if call.kind in COMPUTING and call.produces and not self.quantized[call.address] and self._evaluated(call)
        )  # fmt: skip
        return Plan(self.sites, actions, inputs, float_layers)

    def _check_rules(self) -> None:
        layers = {call.layer: call.types for call in self.calls.values() if call.kind in (*COMPUTING, Kind.FUSE)}
        self.config.check_rules({**layers, "input": ("Input",)})

    def _producer(self, value: ValueId) -> Call | None:
        return self.calls[value[1]] if value[0] == "call" else None

    def _made_by_quantized(self, value: ValueId) -> bool:
        producer = self._producer(value)
        if producer is None or producer.kind in (Kind.PASS, Kind.JOIN):
            return producer is not None and any(self._made_by_quantized(source) for source in producer.values())
        return self.quantized[self.head.get(producer.address, producer.address)]

    def _demands(self, call: Call) -> bool:
        computes = call.kind in (*COMPUTING, Kind.FUSE) and call.address not in {*self.head, *self.masks}
        return computes and self.quantized[call.address]

    def _demanded_values(self, call: Call) -> Iterable[ValueId]:
        """The values that must be on a grid for this call: not those in the middle of a region."""
        region = self.regions.get(call.address)
        inner = {slot for slot, _ in region.inner} if region else ()
        for slot, operands in call.operands.items():
            if slot not in inner:
                yield from (operand.value for operand in operands if operand.value is not None)

    def _unite(self) -> _Groups:
        groups = _Groups()
        for call in self.calls.values():
            for operands in call.operands.values():  # one place in the code, several values: a loop
                values = [operand.value for operand in operands if operand.value]
                for value in values[1:]:
                    groups.unite(values[0], value)
            if call.kind in (Kind.PASS, Kind.JOIN) or call.address in self.masks:
                values = list(call.values())
                for value in [*values[1:], *(("call", call.address, index) for index in range(call.produces))]:
                    groups.unite(values[0], value)
        return groups

    def _activation_sites(self, groups: _Groups, demanded: set[ValueId]) -> dict[ValueId, str]:
        """One quantizer for every demanded group: group -> quantizer name."""
        members: dict[ValueId, list[ValueId]] = {}
        for path in self.recording.inputs:
            members.setdefault(groups.find(("input", path)), []).append(("input", path))
        for call in self.calls.values():
            if call.kind not in (Kind.PASS, Kind.JOIN) and call.address not in self.masks:
                for index in range(call.produces):
                    members.setdefault(groups.find(("call", call.address, index)), []).append(
                        ("call", call.address, index)
                    )
        with_constants = {
            groups.find(("call", call.address, 0))
            for call in self.calls.values() if call.kind is Kind.JOIN and call.produces and any(call.constants())
        }  # fmt: skip
        with_constants |= {groups.find(v) for call in self.calls.values() for v in call.alternating().values()}
        edges = {groups.find(("input", path)) for path in self.recording.inputs}
        edges |= {groups.find(value) for value in self.recording.outputs}
        names = {}
        for group, values in members.items():
            if group not in demanded:
                continue
            first = values[0]
            producers = [self._producer(value) for value in values]
            bits = [self._activation_bits(producer, group in edges) for producer in producers]
            name = f"input.{first[1]}" if first[0] == "input" else f"{self._output_layer(producers[0])}.output"
            if first[0] == "call" and first[2]:
                name += f"{first[2]}"
            names[group] = name
            self.sites[name] = Site(
                name=name,
                role="activation",
                spec=self.config.activation.with_bits(max(bits)),
                layer=self._output_layer(producers[0]) if producers[0] else first[1],
                shares=self._shares(groups, group),
                shape=self.recording.inputs[first[1]] if first[0] == "input" else producers[0].output_shape,
                nonnegative=group not in with_constants
                and all(producer is not None and producer.never_negative for producer in producers),
            )
        return names

    def _output_layer(self, producer: Call) -> str:
        """The layer whose output it is: a fused batch norm or relu speaks for the computation before it."""
        return self.calls[self.head.get(producer.address, producer.address)].layer

    def _shares(self, groups: _Groups, group: ValueId) -> tuple[str, ...]:
        return tuple(
            call.layer for call in self.calls.values()
            if any(groups.find(("call", call.address, index)) == group for index in range(call.produces))
        )  # fmt: skip

    def _activation_bits(self, producer: Call | None, edge: bool) -> int:
        if producer is None:
            return self.config.activation_bits_of("input", ("Input",), edge)
        head = self.calls[self.head.get(producer.address, producer.address)]
        return self.config.activation_bits_of(head.layer, head.types, edge)

    def _action(self, call: Call, groups: _Groups, quantizer_of: dict[ValueId, str]) -> Action:
        action = self._placed_action(call, groups, quantizer_of)
        head = self.head.get(call.address, call.address)
        last = self.calls[self.chain(head)[-1]]
        ends_quantized = groups.find(("call", last.address, 0)) in quantizer_of and last.produces == 1
        if call.kind is Kind.JOIN or not self.quantized[head] or not ends_quantized:
            return action
        operands = tuple(
            (operand.slot, quantizer_of[groups.find(operand.value)])
            for entries in call.operands.values() for operand in entries
            if operand.value is not None and groups.find(operand.value) in quantizer_of
        )  # fmt: skip
        return dataclasses.replace(action, head=head, operands=operands)

    def _placed_action(self, call: Call, groups: _Groups, quantizer_of: dict[ValueId, str]) -> Action:
        outputs = tuple(quantizer_of.get(groups.find(("call", call.address, index))) for index in range(call.produces))
        action = Action(layer=call.layer, kind=call.kind, in_place=call.in_place)
        if call.kind is Kind.JOIN:
            (group,) = {groups.find(value) for value in call.values()} or {None}
            if group in quantizer_of:
                slots = tuple((operand.slot, quantizer_of[group]) for operand in call.constants())
                return dataclasses.replace(action, weights=slots)
            return action
        if call.address in self.masks:
            return dataclasses.replace(
                action, scores=next(slot for slot, _ in call.operands.items() if _reads(call, slot))
            )
        fused_further = self.chain(call.address)[1:]
        if not self.quantized[call.address]:
            return dataclasses.replace(action, outputs=outputs)
        if call.address in self.head:
            folded = self.head[call.address] if call.operation.name == "batch_norm" else None
            return dataclasses.replace(action, outputs=outputs, folded_into=folded)
        batch_norm = next((a for a in fused_further if self.calls[a].operation.name == "batch_norm"), None)
        action = dataclasses.replace(action, outputs=outputs, batch_norm=batch_norm)
        region = self.regions.get(call.address)
        if region is not None:
            root = quantizer_of[groups.find(region.root)]
            return dataclasses.replace(action, region=RegionAction(root, region.roots, region.inner))
        if weighted_form(call) is not None:
            return self._weighted_action(action, call, groups, quantizer_of)
        if call.operation.name == "embedding":
            (weight,) = (operand for operand in call.constants())
            name = self._weight_site(call, weight, None, edge=False)
            return dataclasses.replace(action, weights=((weight.slot, name),))
        if call.operation.name in NORMS:
            return action
        if call.kind is Kind.FUSE:
            return action  # a batch norm that stands alone: its constants become multipliers, not weights
        shared = self._alternating(call, groups, quantizer_of)
        constants = {
            operand.slot: shared.get(operand.slot) or self._constant_site(call, operand) for operand in call.constants()
        }
        return dataclasses.replace(action, weights=tuple(constants.items()))

    @staticmethod
    def _alternating(call: Call, groups: _Groups, quantizer_of: dict[ValueId, str]) -> dict[Slot, str]:
        """Quantizers of the slots that hold a constant first and a value later: on the value's grid both times."""
        return {slot: quantizer_of[groups.find(value)] for slot, value in call.alternating().items()}

    def _weighted_action(self, action: Action, call: Call, groups: _Groups, quantizer_of) -> Action:
        form = weighted_form(call)
        weight = next((operand for operand in call.constants() if operand.slot in form.weight), None)
        bias = next((slot for slot in form.bias if slot in call.operands), None)
        inputs = [operand for slot in form.inputs for operand in call.operands.get(slot, ())]
        value = next((operand.value for operand in inputs if operand.value), None)
        if weight is None or value is None:
            return action
        name = self._weight_site(call, weight, form.axis, call.address in self.edges)
        return dataclasses.replace(
            action,
            weights=((weight.slot, name), *self._alternating(call, groups, quantizer_of).items()),
            bias=bias,
            input_quantizer=quantizer_of[groups.find(value)],
            weight_quantizer=name,
            form=form,
        )

    def _edges(self) -> set[int]:
        """Addresses of first and last layers with weights.

        Besides the first and the last one that run, those are all that read nothing but inputs of the network, or make
        an output of it: a network of several inputs, or of several heads, has several.
        """
        weighted = [
            (call, form) for call in self.calls.values()
            if (form := weighted_form(call)) is not None and self.quantized[call.address]
        ]  # fmt: skip
        edges = {call.address for call, _ in (*weighted[:1], *weighted[-1:])}
        for call, form in weighted:
            read = [operand.value for slot in form.inputs for operand in call.operands.get(slot, ()) if operand.value]
            if read and all(origin[0] == "input" for origin in self._origins(read)):
                edges.add(call.address)
        makers = {origin[1] for origin in self._origins(self.recording.outputs) if origin[0] == "call"}
        return edges | {self.head.get(address, address) for address in makers}

    def _origins(self, values: Iterable[ValueId]) -> set[ValueId]:
        """The inputs and results of computations that `values` consist of, seen through what only moves values."""
        origins, seen, rest = set(), set(), list(values)
        while rest:
            value = rest.pop()
            producer = self._producer(value)
            if producer is None or producer.kind not in (Kind.PASS, Kind.JOIN):
                origins.add(value)
            elif producer.address not in seen:
                seen.add(producer.address)
                rest.extend(producer.values())
        return origins

    def _weight_site(self, call: Call, operand: Operand, axis: int | None, edge: bool) -> str:
        name = operand.constant or f"{call.layer}.weight"
        bits = self.config.weight_bits_of(call.layer, call.types, edge)
        known = self.sites.get(name)
        if known is not None:  # tied weights: one quantizer, as wide as the widest use
            bits = max(bits, known.spec.bits)
            axis = None if known.axis is None else axis  # an embedding has one scale for all rows
        spec = self.config.weight.with_bits(bits)
        self.sites[name] = Site(
            name=name,
            role="weight",
            spec=spec,
            layer=known.layer if known else call.layer,
            shares=(*(known.shares if known else ()), call.layer),
            shape=operand.shape,
            axis=axis if spec.granularity != "per_tensor" else None,
        )
        return name

    def _constant_site(self, call: Call, operand: Operand) -> str:
        """A constant beside a value (`x + position`): one symmetric grid with a zero, at least of the edge width."""
        name = operand.constant or f"{call.layer}.{'.'.join(str(part) for part in operand.slot)}"
        bits = max(self.config.weight_bits_of(call.layer, call.types, edge=False), self.config.edge_bits, 3)
        known = self.sites.get(name)
        self.sites[name] = Site(
            name=name,
            role="weight",
            spec=QuantSpec(bits=bits),
            layer=call.layer,
            shares=(*(known.shares if known else ()), call.layer),
            shape=operand.shape,
        )
        return name
