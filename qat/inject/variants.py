"""Other masks a network is recorded with: libraries leave a mask out where a batch shows that it masks nothing.

Which way a batch takes is decided by its contents, and the example inputs take one of them. So a network that looks at
the contents of masks is recorded with masks of the other kind as well.
"""

from collections.abc import Container, Iterator

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from qat.inject.inputs import input_paths


def mask_variants(
    module: nn.Module, args: tuple, kwargs: dict, looked_at: Container[str]
) -> Iterator[tuple[tuple, dict]]:
    """The inputs (args, kwargs) with one mask replaced by one that masks nothing, or by one that masks something.

    looked_at: paths of the inputs whose contents the network looks at; others may be indices, for which other numbers
    are out of range. What may be a mask among them are integers and bools that hold 0 and 1 only, (batch, ..., length).
    """
    masks = {
        id(leaf) for path, leaf in input_paths(module.forward, args, kwargs) if path in looked_at and _may_be_mask(leaf)
    }
    leaves, structure = pytree.tree_flatten((args, kwargs))
    for index, leaf in enumerate(leaves):
        for other in _others(leaf) if id(leaf) in masks else ():
            yield pytree.tree_unflatten([*leaves[:index], other, *leaves[index + 1 :]], structure)


def _may_be_mask(tensor: Tensor) -> bool:
    if tensor.is_floating_point() or tensor.dim() < 2:
        return False
    return bool(((tensor == 0) | (tensor == 1)).all())


def _others(mask: Tensor) -> Iterator[Tensor]:
    """Masks of the kinds that `mask` is not: without a zero, and with zeros behind the first place of some rows."""
    if not bool(mask.all()):
        yield torch.ones_like(mask)
    if (bool(mask.all()) or not bool(mask.any())) and mask.shape[-1] > 1:
        padded = torch.ones_like(mask)
        padded[len(mask) // 2 :, ..., mask.shape[-1] // 2 :] = 0
        yield padded
