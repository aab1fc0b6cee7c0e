"""A loss that rose where batch norm was frozen: no statistic of the batch holds back a large learning rate any more."""

import math
from collections.abc import Mapping, Sequence

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

#: How many times its lowest value before that a loss is at the end, from where on it is worth a remedy.
LARGEST_RISE = 2.0

#: Parts of the names of losses that are no training's; a network that learns its data by heart raises them.
OTHER_SPLITS = ("val", "test")


def diverged(network: nn.Module, entries: Sequence[Mapping]) -> list[str]:
    """One sentence with the remedy for each training loss that the frozen end of a run left far above what it was.

    entries: of the history. Only epochs of the last one's widths are compared: fewer bits cost what they cost.
    """
    if not entries or not any(isinstance(module, _BatchNorm) for module in network.modules()):
        return []
    last = entries[-1]
    same = [entry for entry in entries if all(entry[key] == last[key] for key in ("weight_bits", "activation_bits"))]
    before = [entry for entry in same if entry["phase"] in ("quantize", "frozen")]
    frozen = next((entry["epoch"] for entry in same if entry["phase"] == "final"), None)
    if frozen is None:
        return []
    sentences = []
    for name, value in last["metrics"].items():
        known = [(entry["metrics"][name], entry["epoch"]) for entry in before if entry["metrics"].get(name) is not None]
        if "loss" not in name or any(split in name for split in OTHER_SPLITS) or not known:
            continue
        lowest, epoch = min(known)
        at_end = math.inf if value is None else value
        if lowest > 0 and at_end > LARGEST_RISE * lowest:
            now = "no number" if value is None else f"{value:.3g}"
            sentences.append(
                f"{name} is {now} at the end and was {lowest:.3g} in epoch {epoch}, before batch norm was frozen in "
                f"epoch {frozen}; freeze it where the learning rate is small (freeze_batch_norm=0.9), or clip "
                "gradients (Trainer(gradient_clip_val=1.0))."
            )
    return sentences
