"""What a run is going to do, before it does it: widths, refusals, bytes, and whether the learning rate fits."""

import io
import math
from collections.abc import Mapping

import torch
from torch import Tensor

from qat.errors import ConfigurationError
from qat.inject.handle import Handle
from qat.inject.inputs import input_paths
from qat.inject.plan import described_islands
from qat.integer.images import ImageScaling, check_fits
from qat.schedule import Progress, Schedule

#: Largest update of a layer's weights per step, in shares of their own size (or of a quantization step, where that is
#: larger). Beyond it codes change faster than the loss can tell which changes were good; 0.001 is usual in float.
LARGEST_UPDATE = 0.05


def preflight(handle: Handle, schedule: Schedule | None, progress: Progress) -> str:
    """The table of layers with their widths and bytes, what is left in float, and when which phase begins.

    schedule: None where quantization follows training.
    """
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{type(handle.module).__name__}: {handle.config.name} for {handle.purpose}")
    for column, justify in (("layer", "left"), ("weights", "right"), ("weight bits", "right"), ("output bits", "right"),
                            ("bytes", "right"), ("float32", "right")):  # fmt: skip
        table.add_column(column, justify=justify)
    total, total_float = 0, 0
    outputs = {site.layer: site.spec.bits for site in handle.plan.sites.values() if site.role == "activation"}
    for site in handle.plan.sites.values():
        if site.role != "weight":
            continue
        count = math.prod(site.shape)
        size = math.ceil(count * site.spec.bits / 8)
        total, total_float = total + size, total_float + 4 * count
        table.add_row(
            site.layer,
            f"{count:,}",
            str(site.spec.bits),
            str(outputs.get(site.layer, "")),
            f"{size:,}",
            f"{4 * count:,}",
        )
    for layer, count in _weights_in_float(handle).items():
        total, total_float = total + 4 * count, total_float + 4 * count
        table.add_row(layer, f"{count:,}", "float", str(outputs.get(layer, "")), f"{4 * count:,}", f"{4 * count:,}")
    table.add_section()
    table.add_row("total", "", "", "", f"{total:,}", f"{total_float:,}")
    buffer = io.StringIO()
    Console(file=buffer, force_jupyter=False, width=110).print(table)
    roles = [site.role for site in handle.plan.sites.values()]
    left, islands = handle.plan.float_layers, handle.plan.islands
    rest = f"left in float: {', '.join(left)}" if left else "nothing is left in float"
    if islands:
        rest = f"left in float, as islands between integers: {described_islands(islands)}; the file will not be integer"
    if not handle.config.is_integer:
        rest = {
            "dynamic": "activations are codes where layers read them, of a range found at run time",
            "float": "activations stay real",
        }[handle.config.activations] + "; the file will not be integer"
    counts = f"{roles.count('weight')} weights and {roles.count('activation')} activations"
    buffer.write(f"{counts} are quantized; {rest}\n")
    if handle.config.is_integer:
        weight, activation = handle.config.weight, handle.config.activation
        buffer.write(f"grids: weights {weight.kind} {weight.granularity}, activations {activation.kind}\n")
    if schedule is None:
        return buffer.getvalue()
    buffer.write(f"schedule: {describe(schedule, handle.config.weight.bits, handle.config.activation.bits)}\n")
    for sentence in schedule.check_against(progress):
        buffer.write(f"note: {sentence}\n")
    return buffer.getvalue()


def check_picture(handle: Handle, scaling: ImageScaling) -> None:
    """Refuse, before training, a network that `scaling` cannot make the inputs of. Raises `QATError`."""
    inputs = input_paths(handle.original_forward, *handle.examples)
    if len(inputs) != 1:
        raise ConfigurationError(
            f"raw pictures are asked for, but the network takes {len(inputs)} inputs: {', '.join(dict(inputs))}; "
            "export it with real inputs, and call program.with_image_input(input=...) for one of them."
        )
    ((name, example),) = inputs
    check_fits(scaling, name, tuple(example.shape[1:]), example.is_floating_point())


def _weights_in_float(handle: Handle) -> dict[str, int]:
    """How many weights and biases the float islands that are layers have."""
    modules = dict(handle.module.named_modules())
    layers = dict.fromkeys(layer.partition("#")[0] for layer in handle.plan.islands)
    counts = {layer: sum(map(Tensor.numel, modules[layer].parameters())) for layer in layers if layer in modules}
    return {layer: count for layer, count in counts.items() if count}


def describe(schedule: Schedule, weight_bits: int, activation_bits: int) -> str:
    """The schedule in one line, its ladders as far down as the widths of the config."""
    parts = [f"quantization from {_when(schedule.start)}", f"observers frozen at {_when(schedule.freeze_observers)}",
             f"batch norm frozen at {_when(schedule.freeze_batch_norm)}"]  # fmt: skip
    for ladder, least, what in (
        (schedule.weight_bits, weight_bits, "weights"),
        (schedule.activation_bits, activation_bits, "activations"),
    ):
        rungs = [(point, max(bits, least)) for point, bits in ladder or ()]
        steps = [rung for rung, before in zip(rungs, [(None, None), *rungs], strict=False) if rung[1] != before[1]]
        if steps:
            parts.append(f"{what} {', '.join(f'{bits} bits from {_when(point)}' for point, bits in steps)}")
    return "; ".join(parts)


def _when(point) -> str:
    if isinstance(point, float):
        return f"{point:.0%} of the run"
    return point if isinstance(point, str) else f"epoch {point}"


def quantized_weights(handle: Handle) -> dict[str, Tensor]:
    """The weights that have a step already, by layer, as they are: no copies."""
    named = {site.layer: handle.weight_of(name) for name, site in _started_weights(handle)}
    return {layer: weight for layer, weight in named.items() if weight is not None}


def quantization_steps(handle: Handle) -> dict[str, float]:
    """The mean quantization step of the weights of every layer, in their own unit."""
    return {
        site.layer: float(handle.quantizers[name].scale_in_force().mean()) for name, site in _started_weights(handle)
    }


def _started_weights(handle: Handle):
    sites = handle.plan.sites.items()
    return [(name, site) for name, site in sites if site.role == "weight" and handle.quantizers[name].ready]


@torch.no_grad()
def learning_rate_advice(
    before: Mapping[str, Tensor], after: Mapping[str, Tensor], steps: Mapping[str, float], rate: float
) -> str | None:
    """Whether the learning rate still fits where quantization sets in, from an update that was made with it.

    before, after: the weights of each layer on both sides of the update, whichever optimizer made it. steps: the mean
    quantization step of each layer. A layer's update is measured in shares of its weights' size, or of its step where
    that is larger, all as root mean squares. None where nothing moved: a loss scaler skipped the update.
    """
    if not before:
        return "learning rate: no quantized weight is trained, so there is no update to judge it by."
    shares = {
        layer: _root_mean_square(after[layer].float() - weight.float())
        / max(_root_mean_square(weight.float()), steps[layer])
        for layer, weight in before.items()
    }
    for layer, share in shares.items():
        if not math.isfinite(share):
            return f"learning rate {rate:g} makes the weights of {layer} infinite or NaN at once; lower it."
    layer, largest = max(shares.items(), key=lambda entry: entry[1])
    if largest == 0:
        return None
    if largest > LARGEST_UPDATE:
        return (
            f"learning rate {rate:g} moves the weights of {layer} by {largest:.0%} of their size at once; "
            f"lower it to about {rate * LARGEST_UPDATE / largest:.2g}, or keep {layer} at more bits."
        )
    return f"learning rate {rate:g} fits: the fastest layer, {layer}, moves by {largest:.2%} of its size per update."


def _root_mean_square(tensor: Tensor) -> float:
    return float(tensor.square().mean().sqrt())
