"""Marks in an exported graph around one step of a recurrence, which stands for any number of them.

`torch.export` would unroll a loop over the steps. So while a network is exported, its recurrences trace a single step
between these two operations, which lowering makes a `qat.integer.operations.Loop` of. They never run.
"""

import torch
from torch import Tensor


@torch.library.custom_op("qat::loop_begin", mutates_args=())
def loop_begin(sequence: Tensor, states: list[Tensor]) -> list[Tensor]:
    """[an entry of the sequence (N, ...), the states in front of its step (N, ...)].

    sequence: (N, L, ...). states: the first ones, (N, ...).
    """
    raise NotImplementedError("a mark in exported graphs does not run")


@loop_begin.register_fake
def _(sequence: Tensor, states: list[Tensor]) -> list[Tensor]:
    batch = sequence.shape[0]
    entry = sequence.new_empty((batch, *sequence.shape[2:]))
    return [entry, *(state.new_empty((batch, *state.shape[1:])) for state in states)]


@torch.library.custom_op("qat::loop_end", mutates_args=())
def loop_end(sequence: Tensor, states: list[Tensor], reverse: bool, outputs: list[Tensor], dim: int) -> list[Tensor]:
    """[what all steps give, stacked along `dim`, which is 1; the states behind the last step].

    sequence, and states: as `loop_begin` got the one, and gave the others to the step before. reverse: whether the
    steps begin at the end of the sequence. outputs: what this step gives; one tensor. Like `torch.stack` but for the
    first three, so that one line of code may call both.
    """
    raise NotImplementedError("a mark in exported graphs does not run")


@loop_end.register_fake
def _(sequence: Tensor, states: list[Tensor], reverse: bool, outputs: list[Tensor], dim: int) -> list[Tensor]:
    (output,) = outputs
    stacked = output.new_empty((output.shape[0], sequence.shape[1], *output.shape[1:]))
    return [stacked, *(torch.empty_like(state) for state in states)]
