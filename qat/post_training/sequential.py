"""Layers adjusted one after the other to what quantization does to them: rounding that is learned, biases corrected."""

from collections.abc import Callable

from rich.console import Console
from rich.progress import track

from qat.inject.handle import Handle
from qat.post_training.adaround import learned_rounding
from qat.post_training.adjustments import Adjustments
from qat.post_training.layers import Calibration, Layer, Met, layers_of
from qat.post_training.options import PostTraining
from qat.post_training.watching import QUANTIZED


def adjust_layers(
    handle: Handle, adjustments: Adjustments, batches: list, run: Callable[[object], None], options: PostTraining
) -> None:
    """Adjust the weights and biases of a calibrated network, in eval mode, layer by layer as a forward runs them.

    Every layer is adjusted on what it meets in the network whose layers before it are adjusted already.
    """
    calibration = Calibration(handle, adjustments, batches, run)
    console = Console(force_jupyter=False)
    layers = layers_of(handle, lambda: run(batches[0]))
    for layer in track(layers, "adjusting", transient=True, console=console, disable=not console.is_terminal):
        met = calibration.met(layer, second=options.adaround is not None)
        if options.adaround is not None and layer.owned and _may_round(met):
            _round(calibration, layer, met, options)
        if options.bias_correction:
            _correct(adjustments, layer, met)
    handle.set_state(QUANTIZED)


def _may_round(met: dict[int, Met]) -> bool:
    """Whether second moments are known, and all calls of a layer use its weight as the same matrix."""
    matrices = {(each.geometry.dims, each.geometry.transposed, each.geometry.groups) for each in met.values()}
    return len(matrices) == 1 and all(each.moments.gram is not None for each in met.values())


def _round(calibration: Calibration, layer: Layer, met: dict[int, Met], options: PostTraining) -> None:
    """Write the weight of a layer whose rounding is learned. What a bias will be corrected for, it need not keep."""
    every = [
        met[call.address].moments.centred() if options.bias_correction and call.shift else met[call.address].moments
        for call in layer.calls
    ]
    total = every[0].copy()
    for other in every[1:]:
        total.add(other)
    geometry = met[layer.calls[0].address].geometry
    adjustments, quantizer = calibration.adjustments, calibration.handle.quantizers[layer.weight]
    weight = learned_rounding(adjustments.tensor(layer.weight), quantizer, geometry, total, options.adaround)
    adjustments.write(layer.weight, weight)
    for each in met.values():
        each.matrix = geometry.matrix(quantizer(weight).detach().float())


def _correct(adjustments: Adjustments, layer: Layer, met: dict[int, Met]) -> None:
    """Take the mean error of each output off the bias of a layer (arXiv:1906.04721, section 4.2)."""
    for call in layer.calls:
        if call.shift is None:
            continue
        error = met[call.address].moments.mean_error(met[call.address].matrix).flatten()
        shift = adjustments.tensor(call.shift).detach()
        if shift.shape == error.shape:
            # a batch norm subtracts its mean, a layer adds its bias
            adjustments.write(call.shift, shift + error if call.shift == call.mean else shift - error)
