"""Learning rates over a run."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def warmup_cosine_factor(step: int, total_steps: int, warmup: float, last: float) -> float:
    """Factor of the base learning rate at `step`: rising linearly over the share `warmup`, then a cosine to `last`."""
    warmup_steps = round(warmup * total_steps)
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
    return last + (1 - last) * 0.5 * (1 + math.cos(math.pi * progress))  # arXiv:1608.03983, without restarts


def warmup_cosine(optimizer: Optimizer, total_steps: int, warmup: float = 0.05, last: float = 0.01) -> LambdaLR:
    """Scheduler of `warmup_cosine_factor`, stepped once per optimizer step."""
    return LambdaLR(optimizer, lambda step: warmup_cosine_factor(step, total_steps, warmup, last))
