"""What a prepared network does at each call: which operands it quantizes, what is fused, what its results are."""

import dataclasses
from collections.abc import Container
from dataclasses import dataclass

from qat.inject.calls import Call, Operand, Slot, ValueId
from qat.inject.fusing import Fusion
from qat.inject.groups import Groups
from qat.inject.operations import NORMS, Kind
from qat.inject.sites import Sites
from qat.inject.weighted import WeightedForm, weighted_form
from qat.inject.written_norms import NormStep


@dataclass(frozen=True)
class RegionAction:
    """What a call of a region of pointwise functions reads. root: quantizer of the value that the region is a table of.

    roots: slots that hold that value. inner: slots that hold the result of another call of the region, and its address.
    role: in a norm that is written out; empty in a table.
    """

    root: str
    roots: tuple[Slot, ...]
    inner: tuple[tuple[Slot, int], ...]
    role: str = ""


@dataclass(frozen=True)
class Action:
    """What to do at one address.

    weights: constant operands to quantize, with the quantizer's name. outputs: quantizer of each output, None for none.
    bias: slot of the bias, where it is on the accumulator's grid of `input_quantizer` times `weight_quantizer`.
    batch_norm: address of the batch norm folded into this call. folded_into: for that batch norm, the call's address.
    operands: quantizers of the operands, by slot. head: address of the computation whose result this is, where a
    quantizer stands at the end of it and what is fused behind it.
    narrowed: operands of more bits than a kernel multiplies: slot, quantizer of a narrow copy, and their own quantizer.
    shape: of the result as it was recorded.
    in_place: run out of place. form: where a layer has its weight. scores: slot of the scores that this call masks.
    island: whether it stays in float, between the quantizers of its operands and of its result.
    masks: whether it leaves out scores of a softmax or makes what does; a network need not call it where none are.
    tokens: operands that are rounded to grids of the moment (`qat.tokens`): slot, and the dimensions of one token.
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
    shape: tuple[int, ...] = ()
    head: int | None = None
    in_place: bool = False
    region: RegionAction | None = None
    form: WeightedForm | None = None
    scores: Slot | None = None
    narrowed: tuple[tuple[Slot, str, str], ...] = ()
    island: bool = False
    masks: bool = False
    tokens: tuple[tuple[Slot, tuple[int, ...]], ...] = ()

    @property
    def idle(self) -> bool:
        """Whether the call just runs."""
        quantizes = self.weights or any(self.outputs) or self.batch_norm is not None or self.head is not None
        return not quantizes and not self.in_place and self.region is None and self.scores is None


class Actions:
    """Makes the action of each call. Weights and constants get their quantizers here, from `sites`.

    quantizer_of: group of values -> name of its quantizer. islands: addresses that stay in float between quantizers.
    narrows: whether layers with weights read wide values through a narrow copy.
    """

    def __init__(
        self, fusion: Fusion, groups: Groups, sites: Sites, quantizer_of: dict[ValueId, str],
        islands: Container[int] = (), narrows: bool = False,
    ):  # fmt: skip
        self.narrows = narrows
        self.islands = islands
        self.fusion = fusion
        self.calls = fusion.calls
        self.quantized = fusion.quantized
        self.groups = groups
        self.sites = sites
        self.quantizer_of = quantizer_of

    def of(self, call: Call) -> Action:
        """The action of one call."""
        action = self._placed(call)
        if call.address in self.islands:
            operands = self._operands(call)
            weights = tuple(self._alternating(call).items())
            return dataclasses.replace(
                action, head=call.address, operands=operands, weights=weights, island=True, in_place=call.in_place
            )
        head = self.fusion.head.get(call.address, call.address)
        last = self.calls[self.fusion.chain(head)[-1]]
        ends_quantized = self._quantizer(("call", last.address, 0)) is not None and last.produces == 1
        if call.kind is Kind.JOIN or not self.quantized[head] or not ends_quantized:
            return action
        return dataclasses.replace(action, head=head, operands=self._operands(call))

    def _operands(self, call: Call) -> tuple[tuple[Slot, str], ...]:
        """The quantizers of the values that a call reads, by slot."""
        return tuple(
            (operand.slot, self._quantizer(operand.value))
            for entries in call.operands.values() for operand in entries
            if operand.value is not None and self._quantizer(operand.value) is not None
        )  # fmt: skip

    def _quantizer(self, value: ValueId) -> str | None:
        """The quantizer on whose grid a value lies, None for none."""
        return self.quantizer_of.get(self.groups.find(value))

    def _placed(self, call: Call) -> Action:
        """The action, without what it reads."""
        action = Action(layer=call.layer, kind=call.kind, shape=call.output_shape, in_place=call.in_place)
        if call.address in self.fusion.mask_makers:
            return dataclasses.replace(action, masks=True)
        if call.address in self.fusion.masks:
            scores = next(
                operand.slot for operands in call.operands.values() for operand in operands
                if operand.value is not None and not self.fusion.is_of_integers(operand.value)
            )  # fmt: skip
            return dataclasses.replace(action, scores=scores, masks=True)
        if call.kind is Kind.JOIN:
            return self._joining(action, call)
        outputs = tuple(self._quantizer(("call", call.address, index)) for index in range(call.produces))
        action = dataclasses.replace(action, outputs=outputs)
        if not self.quantized[call.address]:
            return action
        if call.address in self.fusion.head:
            folded = self.fusion.head[call.address] if call.operation.name == "batch_norm" else None
            return dataclasses.replace(action, folded_into=folded)
        return self._computing(self._with_batch_norm(action, call), call)

    def _joining(self, action: Action, call: Call) -> Action:
        """Constants that are joined with values lie on their grid."""
        name = next((self._quantizer(value) for value in call.values()), None)
        if name is None:
            return action
        return dataclasses.replace(action, weights=tuple((operand.slot, name) for operand in call.constants()))

    def _with_batch_norm(self, action: Action, call: Call) -> Action:
        fused_further = self.fusion.chain(call.address)[1:]
        batch_norm = next((a for a in fused_further if self.calls[a].operation.name == "batch_norm"), None)
        return dataclasses.replace(action, batch_norm=batch_norm)

    def _computing(self, action: Action, call: Call) -> Action:
        region = self.fusion.regions.get(call.address)
        if region is not None:
            root = self._quantizer(region.root)
            role = region.role if isinstance(region, NormStep) else ""
            return dataclasses.replace(action, region=RegionAction(root, region.roots, region.inner, role))
        if weighted_form(call) is not None:
            return self._weighted(action, call)
        if call.operation.name == "embedding":
            (weight,) = (operand for operand in call.constants())
            name = self.sites.add_weight(call, weight, axis=None, edge=False)
            return dataclasses.replace(action, weights=((weight.slot, name),))
        if call.operation.name in NORMS or call.kind is Kind.FUSE:
            return action  # constants of a norm become multipliers, not weights
        shared = self._alternating(call)
        constants = {
            operand.slot: shared.get(operand.slot) or self.sites.add_constant(call, operand)
            for operand in (*call.constants(), *self._biases_of_masks(call))
        }
        return dataclasses.replace(action, weights=tuple(constants.items()))

    def _biases_of_masks(self, call: Call) -> list[Operand]:
        """Operands that a mask chose between constants: on a grid of their own, as a constant is."""
        return [
            operand for operands in call.operands.values() for operand in operands
            if operand.value is not None and self.fusion.is_of_integers(operand.value)
            and self._quantizer(operand.value) is None
        ]  # fmt: skip

    def _weighted(self, action: Action, call: Call) -> Action:
        form = weighted_form(call)
        weight = next((operand for operand in call.constants() if operand.slot in form.weight), None)
        bias = next((slot for slot in form.bias if slot in call.operands), None)
        inputs = [operand for slot in form.inputs for operand in call.operands.get(slot, ())]
        source = next((operand for operand in inputs if operand.value), None)
        if weight is None or source is None:
            return action
        quantizer = self._quantizer(source.value)
        narrow = self.sites.add_narrow(quantizer) if self.narrows and quantizer is not None else None
        name = self.sites.add_weight(call, weight, form.axis, edge=call.address in self.sites.edges)
        return dataclasses.replace(
            action,
            weights=((weight.slot, name), *self._alternating(call).items()),
            bias=bias,
            input_quantizer=narrow or quantizer,
            narrowed=((source.slot, narrow, quantizer),) if narrow else (),
            weight_quantizer=name,
            form=form,
        )

    def _alternating(self, call: Call) -> dict[Slot, str]:
        """Quantizers of the slots that hold a constant first and a value later: on the value's grid both times."""
        return {slot: self._quantizer(value) for slot, value in call.alternating().items()}
