"""What a network's eval forward reads of its own constants, found by running it, for the trace of torch.export."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from qat.inject.constant_reads import KnownReads, NotedReads, agreed
from qat.inject.handle import Handle
from qat.lowering.faithful import Arguments, unnoticed


@contextlib.contextmanager
def answering_reads(module: nn.Module, handle: Handle, inputs: Arguments) -> Iterator[None]:
    """Inside, code that reads numbers of tensors that depend on no input gets those of the eval forward on `inputs`.

    Those that follow the size of the batch, or are drawn at random, are answered by nobody.
    """
    known = _reads(module, handle, inputs) if handle.constant_reads else {}
    try:
        handle.reads = KnownReads(known) if known else None
        yield
    finally:
        handle.reads = None


def _reads(module: nn.Module, handle: Handle, inputs: Arguments) -> dict[int, list]:
    """Site -> what is read there, in forwards of one and of two times the batch alike; nothing where one fails."""
    noted = []
    try:
        with unnoticed(handle):
            for args, kwargs in (inputs, _doubled(inputs)):
                handle.reads = NotedReads(handle.constant_reads)
                module(*args, **kwargs)
                noted.append(handle.reads.noted)
    except Exception:  # torch.export traces it with nothing known, and tells what it cannot follow
        return {}
    finally:
        handle.reads = None
    return agreed(*noted)


def _doubled(inputs: Arguments) -> Arguments:
    """The samples of a batch twice."""
    batch = next((leaf.shape[0] for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, Tensor) and leaf.dim()), 1)

    def twice(leaf: Tensor) -> Tensor:
        return torch.cat([leaf, leaf]) if leaf.dim() and leaf.shape[0] == batch else leaf

    return pytree.tree_map_only(Tensor, twice, inputs)
