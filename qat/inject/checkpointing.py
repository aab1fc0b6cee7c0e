"""Activation checkpointing: its regions are computed again in the backward pass, under the same quantization."""

import contextlib
import inspect

import torch.utils.checkpoint

from qat.inject.apply import QuantMode


@contextlib.contextmanager
def recomputing(mode: QuantMode):
    """Let activation checkpointing recompute its regions under the same quantization, while inside.

    Non-reentrant checkpointing asks `context_fn` for a context to recompute in; ours re-enters the mode at the address
    where the region began.
    """
    defaults = inspect.unwrap(torch.utils.checkpoint.checkpoint).__kwdefaults__
    original = defaults["context_fn"]

    def contexts():
        return contextlib.nullcontext(), _Recomputation(mode.handle, mode.previous, mode.folds, mode.sequence)

    defaults["context_fn"] = contexts
    try:
        yield
    finally:
        defaults["context_fn"] = original


class _Recomputation(QuantMode):
    """The mode of a region that the backward pass computes again, beginning behind the address `previous`."""

    def __init__(self, handle, previous: int, folds: bool, sequence: tuple[int, ...]):
        super().__init__(handle)
        self.region_start = previous
        self.folds = folds
        self.sequence = sequence
        self.depth = 0

    def __enter__(self):
        if not self.depth:  # the parts of an opened function run under the mode, entered once more
            self.previous = self.region_start
        self.depth += 1
        return super().__enter__()

    def __exit__(self, *raised):
        self.depth -= 1
        return super().__exit__(*raised)
