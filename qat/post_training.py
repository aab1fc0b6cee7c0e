"""Post-training quantization: observe, convert, no training. What quantization-aware training must beat."""

import dataclasses
from collections.abc import Iterable

import torch
from torch import nn

from qat.errors import ObservationError
from qat.inject.handle import Handle, prepare
from qat.integer.program import IntegerProgram
from qat.lowering.convert import convert
from qat.schedule import QuantState
from qat.spec import OBSERVED_FROM_BITS, QuantConfig, QuantSpec
from qat.training.discovery import inputs_of


def quantize(
    module: nn.Module, batches: Iterable, quant: str | QuantConfig = "w8a8", target: str = "onnxruntime"
) -> IntegerProgram:
    """The integer program of a trained network, its ranges observed on `batches`; the module is left as it was.

    batches: inputs, or pairs of inputs and targets, on the device of the module. Without training no step size is
    learned: below 8 bits ranges are those of least squared error. Raises `ObservationError` for no batches.
    """
    handle = calibrate(module, batches, quant, target)
    try:
        return convert(module)
    finally:
        handle.remove()


def calibrate(
    module: nn.Module, batches: Iterable, quant: str | QuantConfig = "w8a8", target: str | None = "onnxruntime"
) -> Handle:
    """Prepare `module` in place and observe `batches` in float and in eval mode; fake quantization is on afterwards."""
    from rich.console import Console
    from rich.progress import track

    iterator = iter(batches)
    first = next(iterator, None)
    if first is None:
        raise ObservationError("there are no batches to observe ranges on; pass at least one batch of inputs.")
    handle = prepare(module, inputs_of(first, module), _without_training(QuantConfig.parse(quant)), target)
    training = module.training
    handle.set_state(QuantState(observe=True, fake_quantize=False))
    try:
        module.eval()
        with torch.no_grad(), handle.observing_in_eval():
            for batch in track((batch for part in ([first], iterator) for batch in part), "observing", transient=True, console=Console(force_jupyter=False)):
                _call(module, inputs_of(batch, module))
        handle.check_observed()
    except BaseException:
        handle.remove()
        raise
    finally:
        module.train(training)
    handle.set_state(
        QuantState(observe=False, fake_quantize=True, freeze_batch_norm=True, freeze_scales=True, final=True)
    )
    return handle


def _call(module: nn.Module, inputs):
    if isinstance(inputs, dict):
        return module(**inputs)
    return module(*inputs) if isinstance(inputs, tuple) else module(inputs)


def _without_training(config: QuantConfig) -> QuantConfig:
    return dataclasses.replace(config, weight=_observed(config.weight), activation=_observed(config.activation))


def _observed(spec: QuantSpec) -> QuantSpec:
    observer = "mse" if spec.bits < OBSERVED_FROM_BITS else spec.observer
    return dataclasses.replace(spec, method="observed", observer=observer)
