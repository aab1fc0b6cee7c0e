"""Looking results up."""

import torch
from torch import Tensor

from qat.integer.operations import Embedding, Table
from qat.integer.values import AnyGrid


def look_up(operation: Table, codes: Tensor, grid: AnyGrid) -> Tensor:
    """The table's entry for each code. codes: (N, ...) of `grid`; with a table per channel (N, C, ...)."""
    table = operation.codes.to(codes.device)
    places = codes.to(torch.int32) - grid.quant_min
    if table.dim() == 2:
        channels, count = table.shape
        firsts = torch.arange(0, channels * count, count, dtype=torch.int32, device=codes.device)
        places += firsts.reshape(-1, *[1] * (codes.dim() - 2))
    return table.flatten().index_select(0, places.flatten()).reshape(codes.shape)


def embed(operation: Embedding, indices: Tensor) -> Tensor:
    """int8 rows (N, ..., D) of the kernel's weight for indices (N, ...)."""
    kernel = operation.weight.kernel.to(indices.device)
    return kernel.index_select(0, indices.flatten()).reshape(*indices.shape, kernel.shape[1])
