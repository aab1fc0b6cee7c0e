"""The quantizers of a network: one for every grid of its values, and one for every weight and constant."""

import dataclasses
from dataclasses import dataclass

from qat.inject.calls import Call, Operand, Recording, ValueId
from qat.inject.fusing import Fusion
from qat.inject.groups import Groups, origins_of
from qat.inject.operations import Kind
from qat.inject.weighted import weighted_form
from qat.integer.fixed_point import NARROW_BITS
from qat.spec import QuantConfig, QuantSpec


@dataclass(frozen=True)
class Site:
    """One quantizer. layer: the layer whose weight or output it quantizes. shares: every place on its grid.

    shape: of one recorded tensor. axis: output channel axis of a weight, None for per tensor.
    makers: of an activation, the values that are computed on its grid or come in on it, each by the name that a
    quantizer for it alone would have.
    """

    name: str
    role: str
    spec: QuantSpec
    layer: str
    shares: tuple[str, ...]
    shape: tuple[int, ...]
    axis: int | None = None
    nonnegative: bool = False
    makers: tuple[str, ...] = ()


class Sites:
    """The quantizers of one network, by name, as they are asked for."""

    def __init__(self, recording: Recording, config: QuantConfig, fusion: Fusion):
        self.recording = recording
        self.calls = recording.calls
        self.config = config
        self.fusion = fusion
        self.edges = _edges(recording, fusion)
        self.by_name: dict[str, Site] = {}

    def add_activations(self, groups: Groups, demanded: set[ValueId]) -> dict[ValueId, str]:
        """One quantizer for every group of `demanded`: group -> quantizer name."""
        with_constants = {
            groups.find(("call", call.address, 0))
            for call in self.calls.values()
            if call.kind is Kind.JOIN and call.address not in self.fusion.masks
            and call.produces and any(call.constants())
        }  # fmt: skip
        with_constants |= {groups.find(v) for call in self.calls.values() for v in call.alternating().values()}
        edges = {groups.find(("input", path)) for path in self.recording.inputs}
        edges |= {groups.find(value) for value in self.recording.outputs}
        names, shares = {}, self._layers_of(groups)
        for group, values in self._members(groups).items():
            if group not in demanded:
                continue
            first = values[0]
            producers = [self.fusion.producer(value) for value in values]
            bits = [self._activation_bits(producer, group in edges) for producer in producers]
            makers = tuple(self._name_of(value) for value in values)
            name = names[group] = makers[0]
            self.by_name[name] = Site(
                name=name,
                role="activation",
                spec=self.config.activation.with_bits(max(bits)),
                layer=self._output_layer(producers[0]) if producers[0] else first[1],
                shares=tuple(shares.get(group, ())),
                shape=self.recording.inputs[first[1]] if first[0] == "input" else producers[0].output_shape,
                nonnegative=group not in with_constants
                and all(producer is not None and producer.never_negative for producer in producers),
                makers=makers,
            )
        return names

    def add_narrow(self, name: str) -> str | None:
        """The quantizer of a copy of the activation `name` that kernels multiply; None if they multiply it itself."""
        wide = self.by_name[name]
        if wide.spec.bits <= max(NARROW_BITS, self.config.activation.bits):
            return None
        narrow = f"{name.removesuffix('.output')}.narrow"
        self.by_name[narrow] = dataclasses.replace(wide, name=narrow, spec=self.config.activation, makers=(narrow,))
        return narrow

    def add_weight(self, call: Call, operand: Operand, axis: int | None, edge: bool) -> str:
        """The quantizer of a weight, by name. axis: of its output channels, None for one scale."""
        name = operand.constant or f"{call.layer}.weight"
        bits = self.config.weight_bits_of(call.layer, call.types, edge)
        known = self.by_name.get(name)
        if known is not None:  # tied weights: one quantizer, as wide as the widest use
            bits = max(bits, known.spec.bits)
            axis = None if known.axis is None else axis  # an embedding has one scale for all rows
        spec = self.config.weight.with_bits(bits)
        if axis is None:
            spec = dataclasses.replace(spec, granularity="per_tensor", group_size=None)
        self.by_name[name] = Site(
            name=name,
            role="weight",
            spec=spec,
            layer=known.layer if known else call.layer,
            shares=(*(known.shares if known else ()), call.layer),
            shape=operand.recorded_shape or operand.shape,
            axis=axis if spec.granularity != "per_tensor" else None,
        )
        return name

    def add_constant(self, call: Call, operand: Operand) -> str:
        """A constant beside a value (`x + position`): one symmetric grid with a zero, at least of the edge width.

        Beside a wide sum it is as wide.
        """
        name = operand.constant or f"{call.layer}.{'.'.join(str(part) for part in operand.slot)}"
        bits = max(self.config.weight_bits_of(call.layer, call.types, edge=False), self.config.edge_bits, 3)
        sum_bits = self.config.activation_bits_of(call.layer, call.types, edge=False)
        if call.operation.name == "add" and sum_bits > NARROW_BITS:
            bits = sum_bits
        known = self.by_name.get(name)
        self.by_name[name] = Site(
            name=name,
            role="weight",
            spec=QuantSpec(bits=bits),
            layer=call.layer,
            shares=(*(known.shares if known else ()), call.layer),
            shape=operand.shape,
        )
        return name

    def _members(self, groups: Groups) -> dict[ValueId, list[ValueId]]:
        """Group -> the inputs and results of computations in it, in the order they are made."""
        members: dict[ValueId, list[ValueId]] = {}
        for path in self.recording.inputs:
            members.setdefault(groups.find(("input", path)), []).append(("input", path))
        for call in self.calls.values():
            if call.kind not in (Kind.PASS, Kind.JOIN) and call.address not in self.fusion.masks:
                for index in range(call.produces):
                    value = ("call", call.address, index)
                    members.setdefault(groups.find(value), []).append(value)
        return members

    def _name_of(self, value: ValueId) -> str:
        """The name of the quantizer of an input, or of a result of a computation."""
        if value[0] == "input":
            return f"input.{value[1]}"
        return f"{self._output_layer(self.calls[value[1]])}.output{value[2] or ''}"

    def _output_layer(self, producer: Call) -> str:
        """The layer whose output it is: a fused batch norm or relu speaks for the computation before it."""
        return self.calls[self.fusion.head.get(producer.address, producer.address)].layer

    def _layers_of(self, groups: Groups) -> dict[ValueId, list[str]]:
        """Group -> the layers that make its values, all in one pass over the calls."""
        layers: dict[ValueId, list[str]] = {}
        for call in self.calls.values():
            for group in dict.fromkeys(groups.find(("call", call.address, index)) for index in range(call.produces)):
                layers.setdefault(group, []).append(call.layer)
        return layers

    def _activation_bits(self, producer: Call | None, edge: bool) -> int:
        if producer is None:
            return self.config.activation_bits_of("input", ("Input",), edge)
        head = self.calls[self.fusion.head.get(producer.address, producer.address)]
        return self.config.activation_bits_of(head.layer, head.types, edge)


def _edges(recording: Recording, fusion: Fusion) -> set[int]:
    """Addresses of first and last layers with weights.

    Besides the first and the last one that run, those are all that read nothing but inputs of the network, or make
    an output of it: a network of several inputs, or of several heads, has several.
    """
    weighted = [
        (call, form) for call in recording.calls.values()
        if (form := weighted_form(call)) is not None and fusion.quantized[call.address]
    ]  # fmt: skip
    edges = {call.address for call, _ in (*weighted[:1], *weighted[-1:])}
    for call, form in weighted:
        read = [operand.value for slot in form.inputs for operand in call.operands.get(slot, ()) if operand.value]
        if read and all(origin[0] == "input" for origin in origins_of(recording, read)):
            edges.add(call.address)
    makers = {origin[1] for origin in origins_of(recording, recording.outputs) if origin[0] == "call"}
    return edges | {fusion.head.get(address, address) for address in makers}
