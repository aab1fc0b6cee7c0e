"""What a target has no integer form of, told before training and not at the end of it."""

from collections.abc import Callable, Mapping

import torch

from qat.errors import PreparationError
from qat.inject.calls import Call, Operand, Recording
from qat.inject.operations import COMPUTING, Kind
from qat.inject.remedies import REMEDIES
from qat.inject.weighted import weighted_form
from qat.targets import Target


def refuse_unsupported(
    calls: Mapping[int, Call], quantized: Mapping[int, bool], target: Target, is_exempt: Callable[[Call], bool]
) -> None:
    """Raise `PreparationError` with every call that depends on the inputs and that `target` would run in float.

    quantized: address -> whether the rules leave the call quantized. is_exempt: tells calls that
    become part of a table, or of a softmax.
    """
    refused = []
    for call in calls.values():
        if is_exempt(call):
            continue
        reason = _reason_against(call, quantized[call.address], target) if call.produces else None
        if reason is not None:
            where = f"in {call.module or 'the network'} at {call.source}"
            refused.append(f"{call.operation.name} {where}{f' ({reason})' if reason else ''}")
    if refused:
        raise PreparationError(
            f"{target.name} would not run this network with integers alone: {'; '.join(refused)}; replace these "
            "operations, quantize a sub-network (module=), or train without export (target=None)."
        )


def refuse_returned(recording: Recording, target: Target) -> None:
    """Raise `PreparationError` for outputs that a file of `target` cannot have.

    Those are nested ones, those named like an input, and those that no operation on values made, as losses are.
    """
    nested = [".".join(path) for path in recording.returned if len(path) > 1]
    if nested:
        raise PreparationError(
            f"the network returns {', '.join(nested[:3])} inside of a structure, which a file for {target.name} "
            "cannot; return a tensor, a tuple or a flat dict of tensors, or train without export (target=None)."
        )
    if recording.unquantized:
        raise PreparationError(
            f"the network returns {'.'.join(recording.unquantized[0]) or 'an output'} that is a loss or does not "
            "depend on its inputs, and has no integers; give example_inputs without the targets, so that forward "
            "leaves it out, or train without export (target=None)."
        )
    taken = [path[0] for path in recording.returned if path and path[0] in recording.inputs]
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
    if call.operation.name not in target.operations:
        return REMEDIES.get(call.operation.name, "")
    if call.reason is not None:
        return call.reason
    if call.kind is Kind.COMPUTE and call.operation.kind is Kind.FUSE:
        return "bounds that are tensors"
    if call.operation.name in ("add", "mul") and _holds_a_constant_for_each_sample(call):
        return "a constant as large as the batch; use one that broadcasts over it"
    casts_a_mask = call.kind is Kind.CAST and call.other_dtypes == {torch.bool}
    if call.kind in COMPUTING and call.other_dtypes and call.operation.name != "embedding" and not casts_a_mask:
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
