"""What a target has no integer form of, told before training and not at the end of it."""

import glob
from collections.abc import Callable, Container, Iterable, Mapping

import torch

from qat.errors import PreparationError
from qat.inject.calls import Call, Operand, Recording
from qat.inject.operations import COMPUTING, Kind
from qat.inject.remedies import REMEDIES
from qat.inject.weighted import weighted_form
from qat.integer.float_functions import FLOAT_FUNCTIONS
from qat.targets import Target

#: Operations on values and on constants that a forward makes.
_OF_CONSTANTS = frozenset({"add", "mul"})


def refuse_unsupported(
    calls: Mapping[int, Call],
    quantized: Mapping[int, bool],
    islands: Container[int],
    target: Target,
    is_exempt: Callable[[Call], bool],
) -> None:
    """Raise `PreparationError` with every call that depends on the inputs and that `target` would run in float.

    quantized: address -> whether the rules leave the call quantized. islands: addresses of those that the rules leave
    in float between integers. is_exempt: tells calls that become part of a table, or of a softmax.
    """
    refused, by_rule, ruled = [], [], False
    for call in calls.values():
        if is_exempt(call) or not call.produces:
            continue
        if call.address in islands:
            problem = reason_against_island(call)
            remedy = "" if call.operation.name in target.operations else REMEDIES.get(call.operation.name, "")
            reason = problem and "; ".join(filter(None, (f"left in float by a rule, but {problem}", remedy)))
            ruled = ruled or bool(problem)
        else:
            reason = _reason_against(call, quantized[call.address], target)
            if reason is not None and call.kind in (Kind.COMPUTE, Kind.FUSE) and not reason_against_island(call):
                by_rule.append(call.layer)
        if reason is not None:
            where = f"in {call.module or 'the network'} at {call.source}"
            refused.append(f"{call.operation.name} {where}{f' ({reason})' if reason else ''}")
    if refused:
        rest = "quantize a sub-network (module=), or train without export (target=None)."
        ways = [f"replace {'it' if len(refused) == 1 else 'these operations'}"]
        if by_rule:
            ways.append(f"leave {', '.join(by_rule)} in float, as islands between integers, by {rules_for(by_rule)}")
        if ruled:
            ways.append(f"leave in float what an island can hold ({', '.join(FLOAT_FUNCTIONS)})")
        raise PreparationError(
            f"{target.name} would not run this network with integers alone: {'; '.join(refused)}; "
            f"{', '.join(ways)}, {rest}"
        )


def rules_for(layers: Iterable[str]) -> str:
    """Rules that leave `layers` in float, to be pasted: as Python, and as an override of a recipe."""
    names = [glob.escape(layer) for layer in dict.fromkeys(layers)]
    python = ", ".join(f'qat.Rule("{name}", quantize=False)' for name in names)
    yaml = ", ".join(f"{{name: '{name}', quantize: false}}" for name in names)
    return f"rules=[{python}] (in a recipe quant.rules: [{yaml}])"


def reason_against_island(call: Call) -> str | None:
    """Why a rule cannot leave a call in float as an island; None where it can."""
    if call.produces > 1:
        return f"it makes {call.produces} tensors, an island makes one"
    if call.operation.name in _OF_CONSTANTS and _holds_a_constant_for_each_sample(call):
        return "its constant is as large as the batch, and a file takes batches of any size"
    return call.island_reason


def refuse_returned(recording: Recording, target: Target) -> None:
    """Raise `PreparationError` for outputs that a file of `target` cannot have.

    Those are those named like an input or like another output, and those that no operation on values made, as losses
    are.
    """
    if not recording.returned:
        raise PreparationError(
            "the network returns no tensor, and a file has at least one output; return what it computes, or train "
            "without export (target=None)."
        )
    if recording.no_tensors:
        path, what = recording.no_tensors[0]
        raise PreparationError(
            f"the network returns {'.'.join(path) or 'an output'} of type {what}, and outputs of a file are tensors "
            "that follow from its inputs; leave it out, put None in its place, or train without export (target=None)."
        )
    if recording.unquantized:
        raise PreparationError(
            f"the network returns {'.'.join(recording.unquantized[0]) or 'an output'} that is a loss or does not "
            "depend on its inputs, and has no integers; give example_inputs without the targets, so that forward "
            "leaves it out, or train without export (target=None)."
        )
    names = list(map(".".join, recording.returned))
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise PreparationError(
            f"the network returns two outputs named {twice!r}, one of them inside of a structure, and names in a file "
            f"for {target.name} are unique; name one of the two otherwise."
        )
    taken = [name for name in names if name in recording.given]
    if taken:
        raise PreparationError(
            f"the network returns an output named {taken[0]!r} like one of its inputs, and names in a file for "
            f"{target.name} are unique; name one of the two otherwise."
        )


def has_statistics(call: Call) -> bool:
    """Whether a batch norm keeps running statistics, without which nothing can be folded."""
    return ("args", 1) in call.operands or ("kwargs", "running_mean") in call.operands


def _reason_against(call: Call, quantized: bool, target: Target) -> str | None:
    """Why `target` has no integer form of a call: empty for the operation itself, None if it has one."""
    if call.kind not in (Kind.PASS, Kind.JOIN) and not quantized:
        return "left in float by a rule"
    if call.kind is Kind.CAST and (call.other_dtypes == {torch.bool} or call.of_integers):
        return None
    if call.operation.name not in target.operations:
        return REMEDIES.get(call.operation.name, "")
    if call.reason is not None:
        return call.reason
    if call.kind is Kind.COMPUTE and call.operation.kind is Kind.FUSE:
        return "bounds that are tensors"
    if call.operation.name in _OF_CONSTANTS and _holds_a_constant_for_each_sample(call):
        return "a constant as large as the batch; use one that broadcasts over it"
    if call.kind in COMPUTING and call.other_dtypes and call.operation.name != "embedding":
        return f"an operand of {', '.join(sorted(map(str, call.other_dtypes)))}, which has no grid"
    form = weighted_form(call)
    if form is not None and any(
        operand.value is not None for slot in form.weight for operand in call.operands.get(slot, ())
    ):
        return "a weight that depends on the inputs"
    if call.operation.name == "batch_norm" and not has_statistics(call):
        return "no running statistics; set track_running_stats=True"
    return None


def _holds_a_constant_for_each_sample(call: Call) -> bool:
    """Whether a constant differs from sample to sample in every mode: dropout makes such in train mode alone."""
    constants = ([operand for operand in operands if operand.value is None] for operands in call.operands.values())
    return any(found and all(_is_as_large_as_the_batch(call, operand) for operand in found) for found in constants)


def _is_as_large_as_the_batch(call: Call, constant: Operand) -> bool:
    return len(constant.shape) == len(call.output_shape) > 0 and constant.shape[0] == call.output_shape[0] != 1
