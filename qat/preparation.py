"""`prepare`, and what the runtimes of its target would refuse, told before any training."""

import copy
import logging
from collections.abc import Callable

import torch
from torch import nn

from qat.emitters import emitter_of
from qat.emitters.refused import in_one_sentence, located
from qat.errors import ConversionError, MissingExtraError, PreparationError, QATError
from qat.inject.addresses import short_source
from qat.inject.handle import Handle, handle_of
from qat.inject.prepare import prepare as inject
from qat.inject.undisturbed import undisturbed
from qat.integer.program import IntegerProgram
from qat.integer.semantics import for_runtime
from qat.lowering.convert import convert
from qat.schedule import QuantState
from qat.spec import QuantConfig
from qat.targets import TargetName, target_named

_LOG = logging.getLogger("qat")

#: What runs every operation that a plan allows: `qat.targets` says it all.
_RUNS_EVERYTHING = "onnxruntime"


def prepare(
    module: nn.Module, example_inputs, quant: str | QuantConfig = "w8a8", target: TargetName = "onnxruntime"
) -> Handle:
    """Inject fake quantizers into `module`, in place, with observers and fake quantization on.

    example_inputs: a tensor, a tuple of positional or a dict of keyword arguments; dimension 0 is the batch.
    quant: a preset such as "w4a8", or a `QuantConfig`. target: the runtime to export to, or several, each of which
    shall run the network; what quant leaves open of its grids is as all of them take it. None to simulate only.

    The module keeps its type, its parameters and its state_dict keys; only its `forward` is wrapped. Raises
    `PreparationError` where a call cannot be followed or has no integer form on the target, with its source line, or
    where a runtime has no kernel for a layer; the module is then left as it was.
    """
    handle = inject(module, example_inputs, quant, target)
    try:
        if handle.config.is_integer:
            refuse_without_kernels(handle)
        elif handle.target is not None:
            refuse_unlisted(handle)
    except BaseException:
        handle.remove()
        raise
    return handle


def refuse_without_kernels(handle: Handle) -> None:
    """Raise `PreparationError` for what a runtime of the target would refuse in the program of a prepared network.

    The program is that of a copy whose ranges are those of the example inputs. A runtime that is not installed is asked
    when the file is written.
    """
    target = target_named(handle.target)
    runtimes = [name for name in target.runtimes if name != _RUNS_EVERYTHING] if target is not None else []
    program = rehearsed(handle) if runtimes else None
    if program is None:
        return
    for runtime in runtimes:
        try:
            emitter = emitter_of(runtime)
        except MissingExtraError as error:
            _LOG.warning("what %s cannot run is not known before training: %s", runtime, error)
            continue
        if refusals := emitter.refusals(for_runtime(program, runtime)):
            raise PreparationError(in_one_sentence(runtime, located(refusals, _line_of(handle))))


def _line_of(handle: Handle) -> Callable[[str], str]:
    """The line of the network's code that calls a layer, `file:line`, empty where it is not known."""
    return lambda layer: short_source(handle.sources[layer]) if layer in handle.sources else ""


def refuse_unlisted(handle: Handle) -> None:
    """Raise `PreparationError` for what the file of a network whose activations stay real could not hold."""
    with undisturbed(handle.module):
        module = copy.deepcopy(handle.module)
    rehearsal = handle_of(module)
    args, kwargs = rehearsal.examples
    try:
        rehearsal.set_state(QuantState(observe=True, fake_quantize=True))
        with undisturbed(module), torch.no_grad(), rehearsal.observing_in_eval():
            module.eval()
            module(*args, **kwargs)
        convert(module)
    except ConversionError as error:
        raise PreparationError(str(error)) from error


def rehearsed(handle: Handle) -> IntegerProgram | None:
    """The program that a prepared network would have, with the ranges of its example inputs.

    None, with a warning, where no ranges can be told from these.
    """
    with undisturbed(handle.module):
        module = copy.deepcopy(handle.module)
    rehearsal = handle_of(module)
    args, kwargs = torch.utils._pytree.tree_map_only(torch.Tensor, _varied, handle.examples)
    try:
        rehearsal.set_state(QuantState(observe=True, fake_quantize=True))
        with undisturbed(module), torch.no_grad(), rehearsal.observing_in_eval():
            module.eval()
            module(*args, **kwargs)
        final = QuantState(observe=False, fake_quantize=True, freeze_batch_norm=True, freeze_scales=True, final=True)
        rehearsal.set_state(final)
        return convert(module)
    except QATError as error:
        _LOG.warning(
            "what %s cannot run is not known before training, since the network cannot be converted with the ranges of "
            "its example inputs (%s)", handle.purpose, str(error).rstrip("."),
        )  # fmt: skip
        return None


def _varied(example: torch.Tensor) -> torch.Tensor:
    """An example that a range can be told from: numbers of all sizes where all are the same."""
    if not example.is_floating_point() or not example.numel() or example.min() < example.max():
        return example
    return torch.linspace(-1, 1, example.numel(), dtype=example.dtype, device=example.device).reshape(example.shape)
