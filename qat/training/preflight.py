"""What a run is going to do, before it does it: widths, refusals, bytes, and whether the learning rate fits."""

import io
import math

import torch

from qat.inject.handle import Handle
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

    table = Table(
        title=f"{type(handle.module).__name__}: {handle.config.name} for {handle.target or 'simulation only'}"
    )
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
    table.add_section()
    table.add_row("total", "", "", "", f"{total:,}", f"{total_float:,}")
    buffer = io.StringIO()
    Console(file=buffer, force_jupyter=False, width=110).print(table)
    roles = [site.role for site in handle.plan.sites.values()]
    left = handle.plan.float_layers
    rest = f"left in float: {', '.join(left)}" if left else "nothing is left in float"
    counts = f"{roles.count('weight')} weights and {roles.count('activation')} activations"
    buffer.write(f"{counts} are quantized; {rest}\n")
    if schedule is None:
        return buffer.getvalue()
    buffer.write(f"schedule: {describe(schedule, handle.config.weight.bits, handle.config.activation.bits)}\n")
    for sentence in schedule.check_against(progress):
        buffer.write(f"note: {sentence}\n")
    return buffer.getvalue()


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


@torch.no_grad()
def learning_rate_advice(handle: Handle, rate: float) -> str:
    """Whether the learning rate still fits where quantization sets in, from the gradients of the batch just trained.

    A plain step of `rate` times the gradient is compared with the weights of each layer and their quantization step.
    """
    shares = {}
    for name, site in handle.plan.sites.items():
        weight = handle.weight_of(name)
        if weight is None or weight.grad is None or not handle.quantizers[name].ready:
            continue
        size = max(_root_mean_square(weight), float(handle.quantizers[name].scale_in_force().mean()))
        shares[site.layer] = _root_mean_square(weight.grad) * rate / size
    if not shares:
        return "learning rate: the quantized weights have no gradients to judge it by."
    layer, largest = max(shares.items(), key=lambda entry: entry[1])
    if largest > LARGEST_UPDATE:
        return (
            f"learning rate {rate:g} moves the weights of {layer} by {largest:.0%} of their size at once; "
            f"lower it to about {rate * LARGEST_UPDATE / largest:.1g}, or keep {layer} at more bits."
        )
    return f"learning rate {rate:g} fits: the fastest layer, {layer}, moves by {largest:.2%} of its size per update."


def _root_mean_square(tensor: torch.Tensor) -> float:
    return float(tensor.square().mean().sqrt())
