"""Where quantizers go: a pure function from a recording to a plan.

Quantizers sit on values, at their producers, and only where an integer operand is demanded. Operations that move values
(PASS, JOIN) unite them in one group with one grid; operations that run inside the kernel before them (FUSE) get no
quantizer in front; everything else (COMPUTE) demands quantized operands, and the network's outputs are demanded too.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from qat.errors import PreparationError
from qat.inject.actions import Action, Actions
from qat.inject.calls import Call, Recording, ValueId
from qat.inject.coverage import reason_against_island, refuse_returned, refuse_unsupported
from qat.inject.fusing import Fusion
from qat.inject.groups import groups_of
from qat.inject.operations import COMPUTING, Kind
from qat.inject.sites import Site, Sites
from qat.inject.wide import refuse_wide
from qat.spec import QuantConfig
from qat.targets import Target


@dataclass(frozen=True)
class Plan:
    """Every quantizer and what to do at every address. inputs: input path -> quantizer.

    float_layers: left in float, in a simulation. islands: left in float between quantizers, as float islands of a
    program: layer -> name of the operation. may_be_islands: the same for those that a rule could leave in float so.
    """

    sites: dict[str, Site]
    actions: dict[int, Action]
    inputs: dict[str, str]
    float_layers: tuple[str, ...] = ()
    islands: Mapping[str, str] = field(default_factory=dict)
    may_be_islands: Mapping[str, str] = field(default_factory=dict)


def described_islands(islands: Mapping[str, str]) -> str:
    """The layers of `Plan.islands`, each with its operation where its name does not tell."""
    described = (
        layer if layer.rpartition(".")[2].partition("#")[0] == operation else f"{layer} ({operation})"
        for layer, operation in islands.items()
    )
    return ", ".join(described)


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
        self.evaluated = recording.made(training=False)
        ruled = {address: config.quantizes(call.layer, call.types) for address, call in self.calls.items()}
        self.islands = frozenset(
            address for address, call in self.calls.items() if not ruled[address] and self._may_be_island(call)
        )
        self.calls = {
            address: dataclasses.replace(call, kind=Kind.COMPUTE) if address in self.islands else call
            for address, call in self.calls.items()
        }
        self.recording = dataclasses.replace(recording, calls=self.calls)
        self.quantized = {
            address: ruled[address] and call.produces > 0 and self._evaluated(call)
            for address, call in self.calls.items()
        }
        self.fusion = Fusion(self.recording, self.quantized)
        self.calls = self.fusion.calls
        self.recording = dataclasses.replace(recording, calls=self.calls)

    def _evaluated(self, call: Call) -> bool:
        """Whether eval mode makes the call: what only training adds, such as dropped paths, is in no integer file."""
        return call.kind is Kind.PASS or call.address in self.evaluated

    def _may_be_island(self, call: Call) -> bool:
        """Whether a call that the rules leave in float stands between integers: it computes with real values."""
        computes = call.kind in (Kind.COMPUTE, Kind.FUSE) and call.produces > 0 and not call.of_integers
        return self.target is not None and computes and self._evaluated(call)

    def plan(self) -> Plan:
        self._check_rules()
        if self.target is not None:
            refuse_returned(self.recording, self.target)
            calls = {address: call for address, call in self.calls.items() if self._evaluated(call)}
            refuse_unsupported(calls, self.quantized, self.islands, self.target, self.fusion.is_exempt)
        groups = groups_of(self.recording, self.fusion.masks)
        demanded = {
            groups.find(value)
            for call in self.calls.values() if self._demands(call) for value in self._demanded_values(call)
        }  # fmt: skip
        demanded |= {groups.find(("call", address, 0)) for address in self.islands}
        demanded |= {groups.find(value) for value in self.recording.outputs if self._made_by_quantized(value)}
        demanded |= {groups.find(value) for value in self.recording.compared if not self.fusion.is_of_integers(value)}
        sites = Sites(self.recording, self.config, self.fusion)
        quantizer_of = sites.add_activations(groups, demanded)
        if self.target is not None:
            refuse_wide(self.fusion, groups, quantizer_of, sites.by_name, self.target)
        maker = Actions(self.fusion, groups, sites, quantizer_of, self.islands, narrows=self.target is not None)
        actions = {call.address: maker.of(call) for call in self.calls.values() if call.kind is not Kind.PASS}
        if not any(site.role == "weight" for site in sites.by_name.values()):
            raise PreparationError(
                "there is nothing to quantize: the network calls no convolution, linear or other layer with weights "
                "that the rules leave quantized; pass the network itself as module=, or relax the rules."
            )
        inputs = {
            path: quantizer_of[groups.find(("input", path))]
            for path in self.recording.inputs
            if groups.find(("input", path)) in quantizer_of
        }
        islands = {self.calls[address].layer: self.calls[address].operation.name for address in sorted(self.islands)}
        possible = {
            call.layer: call.operation.name for call in self.calls.values()
            if self._may_be_island(call) and call.address not in self.islands and not reason_against_island(call)
        }  # fmt: skip
        return Plan(sites.by_name, actions, inputs, self._float_layers(), islands, possible)

    def _check_rules(self) -> None:
        layers = {call.layer: call.types for call in self.calls.values() if call.kind in (*COMPUTING, Kind.FUSE)}
        self.config.check_rules({**layers, "input": ("Input",)})

    def _float_layers(self) -> tuple[str, ...]:
        return tuple(
            call.layer for call in self.calls.values()
            if call.kind in COMPUTING and call.produces and not self.quantized[call.address] and self._evaluated(call)
            and call.address not in self.fusion.mask_makers and call.address not in self.islands
        )  # fmt: skip

    def _made_by_quantized(self, value: ValueId) -> bool:
        producer = self.fusion.producer(value)
        if producer is None or producer.kind in (Kind.PASS, Kind.JOIN):
            return producer is not None and any(self._made_by_quantized(source) for source in producer.values())
        if producer.address in self.islands:
            return True
        return self.quantized[self.fusion.head.get(producer.address, producer.address)]

    def _demands(self, call: Call) -> bool:
        is_fused = call.address in {*self.fusion.head, *self.fusion.masks, *self.fusion.mask_makers}
        is_on_grids = self.quantized[call.address] or call.address in self.islands
        return call.kind in (*COMPUTING, Kind.FUSE) and not is_fused and is_on_grids

    def _demanded_values(self, call: Call) -> Iterable[ValueId]:
        """The values that must be on a grid for this call: not those in the middle of a region."""
        region = self.fusion.regions.get(call.address)
        inner = {slot for slot, _ in region.inner} if region else ()
        for slot, operands in call.operands.items():
            if slot not in inner:
                yield from (operand.value for operand in operands if operand.value is not None)
