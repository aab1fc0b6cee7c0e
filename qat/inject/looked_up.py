"""What networks look up by integers, written as comparisons and embeddings. Opened as `qat.inject.opened` tells."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """1 where a class is the integer, else 0: (...) to (..., num_classes)."""
    if num_classes < 1:
        return NotImplemented
    return (tensor.unsqueeze(-1) == torch.arange(num_classes, device=tensor.device)).to(torch.int64)


def rows(table: Tensor, index) -> Tensor:
    """`table[ids]` of a parameter (V, ...): an embedding."""
    (index,) = index if isinstance(index, tuple) and len(index) == 1 else (index,)
    is_table = isinstance(table, nn.Parameter) and table.is_floating_point() and table.dim() > 0
    if not is_table or not isinstance(index, Tensor) or index.dtype not in (torch.int32, torch.int64):
        return NotImplemented
    if not index.dim():
        return NotImplemented
    counted = torch.where(index < 0, index + table.shape[0], index)  # an embedding has no entries from the end
    return F.embedding(counted, table.reshape(table.shape[0], -1)).reshape(*index.shape, *table.shape[1:])


LOOKED_UP = {F.one_hot: one_hot, torch._C._nn.one_hot: one_hot, Tensor.__getitem__: rows}
