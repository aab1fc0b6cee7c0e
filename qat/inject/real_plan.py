"""The plan of a network whose activations have no grids of their own: quantizers sit on weights alone.

With dynamic activations a layer rounds what it reads to grids of the moment as well (`qat.tokens`).
"""

import dataclasses
from collections.abc import Iterable

from qat.errors import PreparationError
from qat.inject.actions import Action
from qat.inject.calls import Call, Operand, Recording
from qat.inject.fusing import Fusion
from qat.inject.operations import COMPUTING, Kind
from qat.inject.plan import Plan
from qat.inject.sites import Sites
from qat.inject.weighted import WeightedForm, weighted_form
from qat.spec import QuantConfig
from qat.targets import Target

#: Layers without a kernel that multiplies integers of activations: their weights have codes, their inputs none.
_WEIGHTS_ALONE = ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")


def make_real_plan(recording: Recording, config: QuantConfig, target: Target | None) -> Plan:
    """Decide the quantizers of weights, and which layers read tokens on grids of the moment.

    Raises `PreparationError` where there is nothing to quantize, and `ConfigurationError` for a rule that matches
    nothing, or a target that runs integer files only.
    """
    if target is not None:
        target.check(config)
    calls = recording.calls
    named = {call.layer: call.types for call in calls.values() if call.kind in (*COMPUTING, Kind.FUSE)}
    config.check_rules(named)
    quantized = {
        address: call.produces > 0 and config.weight is not None and config.quantizes(call.layer, call.types)
        for address, call in calls.items()
    }
    fusion = Fusion(recording, quantized)
    sites = Sites(recording, config, fusion)
    actions = {
        call.address: _with_weight(_plain(call, fusion), call, config, sites)
        for call in calls.values() if call.kind is not Kind.PASS
    }  # fmt: skip
    if config.weight is not None and not sites.by_name:
        raise PreparationError(
            "there is nothing to quantize: the network calls no convolution, linear or other layer with weights "
            "that the rules leave quantized; pass the network itself as module=, or relax the rules."
        )
    return Plan(sites.by_name, actions, {})


def _plain(call: Call, fusion: Fusion) -> Action:
    """A call that just runs, or leaves out scores of a softmax in the one way that works with every mask."""
    scores = None
    if call.address in fusion.masks:
        scores = next(
            operand.slot for operands in call.operands.values() for operand in operands
            if operand.value is not None and not fusion.is_of_integers(operand.value)
        )  # fmt: skip
    masks = call.address in {*fusion.masks, *fusion.mask_makers}
    return Action(layer=call.layer, kind=call.kind, shape=call.output_shape, scores=scores, masks=masks)


def _with_weight(action: Action, call: Call, config: QuantConfig, sites: Sites) -> Action:
    """The action with the quantizer of the call's weight, where it has one and no rule leaves it as it is."""
    if not sites.fusion.quantized[call.address]:
        return action
    if call.operation.name == "embedding":
        weight = next(iter(call.constants()), None)
        return action if weight is None else _quantizing(action, call, weight, 0, sites)
    form = weighted_form(call)
    if form is None:
        return action
    weight = next((operand for operand in call.constants() if operand.slot in form.weight), None)
    source = next((operand for operand in _operands(call, form.inputs) if operand.value is not None), None)
    if weight is None or source is None:
        return action
    action = _quantizing(action, call, weight, form.axis, sites)
    if config.activations != "dynamic" or call.operation.name in _WEIGHTS_ALONE:
        return action
    return dataclasses.replace(action, tokens=((source.slot, token_dims(form)),))


def _quantizing(action: Action, call: Call, weight: Operand, axis: int, sites: Sites) -> Action:
    name = sites.add_weight(call, weight, axis, edge=call.address in sites.edges)
    return dataclasses.replace(action, weights=((weight.slot, name),))


def token_dims(form: WeightedForm) -> tuple[int, ...]:
    """The dimensions of one token of a layer's input: its features, or all of a sample for a convolution."""
    return tuple(range(form.channels, 0))


def _operands(call: Call, slots) -> Iterable[Operand]:
    return (operand for slot in slots for operand in call.operands.get(slot, ()))
