"""Post-training quantization: observe, convert, no training. What quantization-aware training must beat."""

import dataclasses
import itertools
from collections.abc import Iterable

import torch
from torch import nn

from qat.errors import ConfigurationError, ObservationError
from qat.inject.handle import Handle
from qat.integer.program import IntegerProgram
from qat.lowering.convert import convert
from qat.post_training.adjustments import Adjustments
from qat.post_training.equalization import equalize
from qat.post_training.options import PostTraining
from qat.post_training.sequential import adjust_layers
from qat.post_training.watching import FLOAT, QUANTIZED
from qat.preparation import prepare
from qat.spec import QuantConfig
from qat.targets import TargetName
from qat.training.discovery import inputs_of, require_forward
from qat.training.modes import modes_kept


def quantize(
    module: nn.Module,
    batches: Iterable,
    quant: str | QuantConfig = "w8a8",
    target: TargetName = "onnxruntime",
    *,
    options: PostTraining | None = None,
) -> IntegerProgram:
    """The integer program of a trained network, its ranges observed on `batches`; the module is left as it was.

    batches: inputs, or pairs of inputs and targets, on the device of the module. quant: without training no step size
    is learned; ranges are those of `QuantSpec.observer`. target: as for `qat.prepare`. options: what is done besides
    observing ranges; batches are then kept, and run through several times. Raises `ObservationError` for no batches and
    for batches without a range: empty ones, NaN or infinity.
    """
    handle = calibrate(module, batches, quant, target, options=options)
    try:
        return convert(module)
    finally:
        handle.remove()


def calibrate(
    module: nn.Module,
    batches: Iterable,
    quant: str | QuantConfig = "w8a8",
    target: TargetName = "onnxruntime",
    *,
    options: PostTraining | None = None,
) -> Handle:
    """Prepare `module` in place and observe `batches` in float and in eval mode; fake quantization is on afterwards.

    options: see `qat.PostTraining`; what they change in the module `handle.remove()` undoes.
    """
    from rich.console import Console
    from rich.progress import track

    options = options or PostTraining()
    require_forward(module)
    if isinstance(batches, torch.Tensor | dict):  # whose rows or keys would be taken for batches
        raise ConfigurationError(f"batches is a {type(batches).__name__}; pass a list of batches, e.g. [inputs].")
    of_weights_alone = not QuantConfig.parse(quant).is_integer and not options.adjusts_layers
    iterator = iter(itertools.islice(batches, 1 if of_weights_alone else options.batches))
    first = next(iterator, None)
    if first is None:
        raise ObservationError("there are no batches to observe ranges on; pass at least one batch of inputs.")
    every = itertools.chain([first], iterator)
    if options.adjusts_layers:
        every = list(every)
    adjustments = Adjustments(module)
    handle = prepare(module, inputs_of(first, module), _without_training(QuantConfig.parse(quant)), target)
    handle.on_removal.append(adjustments.undo)
    console = Console(force_jupyter=False)
    try:
        with modes_kept(module), torch.no_grad():
            module.eval()
            if options.equalize:
                equalize(handle, adjustments, lambda: _call(module, inputs_of(first, module)))
            handle.set_state(FLOAT)
            with handle.observing_in_eval():
                for batch in track(
                    every, "observing", transient=True, console=console, disable=not console.is_terminal
                ):
                    _call(module, inputs_of(batch, module))
            handle.check_observed()
            handle.set_state(QUANTIZED)
            if options.adjusts_layers:
                inputs = [inputs_of(batch, module) for batch in every]
                adjust_layers(handle, adjustments, inputs, lambda batch: _call(module, batch), options)
    except BaseException:
        handle.remove()
        raise
    return handle


def _call(module: nn.Module, inputs):
    if isinstance(inputs, dict):
        return module(**inputs)
    return module(*inputs) if isinstance(inputs, tuple) else module(inputs)


def _without_training(config: QuantConfig) -> QuantConfig:
    """The config with every range observed, as nothing is learned."""
    observed = {
        name: dataclasses.replace(spec, method="observed")
        for name in ("weight", "activation") if (spec := getattr(config, name)) is not None
    }  # fmt: skip
    return dataclasses.replace(config, **observed)
