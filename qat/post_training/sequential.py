"""Layers adjusted one after the other to what quantization does to them: rounding that is learned, biases corrected."""

from collections.abc import Callable

from rich.console import Console
from rich.progress import track

from qat.inject.handle import Handle
from qat.post_training.adaround import learned_rounding
from qat.post_training.adjustments import Adjustments
from qat.post_training.layers import QUANTIZED, Calibration, Layer, layers_of
from qat.post_training.moments import Moments
from qat.post_training.options import PostTraining
from qat.post_training.rows import Geometry


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
        moments, geometry = calibration.moments(layer, second=options.adaround is not None)
        if options.adaround is not None and _is_one_matrix(geometry):
            _round(calibration, layer, moments, next(iter(geometry.values())), options)
        if options.bias_correction:
            _correct(calibration, layer, moments, geometry)
    handle.set_state(QUANTIZED)


def _is_one_matrix(geometry: dict[int, Geometry]) -> bool:
    """Whether all calls of a layer use its weight as the same matrix."""
    return len({(each.dims, each.transposed, each.groups) for each in geometry.values()}) == 1


def _round(
    calibration: Calibration, layer: Layer, moments: dict[int, Moments], geometry: Geometry, options: PostTraining
) -> None:
    """Write the weight of a layer whose rounding is learned. Where a bias takes care of the means, it need not."""
    every = [
        moments[call.address].centred() if options.bias_correction and call.shift else moments[call.address]
        for call in layer.calls
    ]
    total = every[0].copy()
    for other in every[1:]:
        total.add(other)
    weight, quantizer = calibration.adjustments.tensor(layer.weight), calibration.handle.quantizers[layer.weight]
    calibration.adjustments.write(layer.weight, learned_rounding(weight, quantizer, geometry, total, options.adaround))


def _correct(
    calibration: Calibration, layer: Layer, moments: dict[int, Moments], geometry: dict[int, Geometry]
) -> None:
    """Take the mean error of each output off the bias of a layer (arXiv:1906.04721, section 4.2)."""
    adjustments = calibration.adjustments
    weight = adjustments.tensor(layer.weight).detach()
    rounded = calibration.handle.quantizers[layer.weight](weight)
    for call in layer.calls:
        if call.shift is None:
            continue
        error = moments[call.address].mean_error(geometry[call.address].matrix(rounded.float())).flatten()
        shift = adjustments.tensor(call.shift).detach()
        if shift.shape == error.shape:
            # a batch norm subtracts its mean, a layer adds its bias
            adjustments.write(call.shift, shift + error if call.shift == call.mean else shift - error)
