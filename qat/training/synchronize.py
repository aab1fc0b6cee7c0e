"""Agreement across ranks: what each rank observes and chooses on its own data must end the same everywhere.

Without it ranks drift apart: each rounds to a grid of its own while their weights are averaged.
"""

import torch
import torch.distributed as dist
from torch import Tensor

from qat.inject.handle import Handle


def average_across_ranks(tensor: Tensor) -> None:
    """Mean over all ranks, in place."""
    dist.all_reduce(tensor)
    tensor /= dist.get_world_size()


@torch.no_grad()
def synchronize_ranges(handle: Handle) -> None:
    """Give all ranks the union of their ranges, the mean of their histograms, and the mean of their learned scales."""
    quantizers = list(handle.quantizers.values())
    observers = [quantizer.observer for quantizer in quantizers if quantizer.observer is not None]
    _reduce([observer.minimum for observer in observers], dist.ReduceOp.MIN)
    _reduce([observer.maximum for observer in observers], dist.ReduceOp.MAX)
    for observer in observers:
        if hasattr(observer, "counts"):
            exponent = observer.exponent.clone()
            dist.all_reduce(exponent, dist.ReduceOp.MAX)
            observer.counts.copy_(observer.widened(exponent))
            observer.exponent.copy_(exponent)
            average_across_ranks(observer.counts)
    learned = list(handle.parameters())
    _reduce(learned, dist.ReduceOp.SUM, divisor=dist.get_world_size())
    for quantizer in quantizers:
        quantizer.refresh()


def _reduce(tensors: list[Tensor], operation, divisor: int = 1) -> None:
    """Reduce many small tensors in one call, in place."""
    if not tensors:
        return
    flat = torch.cat([tensor.reshape(-1).float() for tensor in tensors])
    dist.all_reduce(flat, operation)
    for tensor, piece in zip(tensors, (flat / divisor).split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(piece.view_as(tensor))
