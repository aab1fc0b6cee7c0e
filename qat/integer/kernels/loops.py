"""A program of one step, run for every step of a sequence."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from qat.integer.operations import Loop

#: Runs a body: codes of its inputs to those of its outputs, both by the names of their values.
Step = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]


def loop(operation: Loop, operands: Sequence[Tensor], step: Step) -> tuple[Tensor, ...]:
    """Codes of the operation's outputs: (N, L, ...), and the states behind the last step.

    operands: sequences (N, L, ...) and first states (N, ...), of constants with a batch of 1.
    """
    batch = max(codes.shape[0] for codes in operands)
    operands = [codes.expand(batch, *codes.shape[1:]) for codes in operands]
    sequences, states = operands[: len(operation.sequences)], operands[len(operation.sequences) :]
    count = sequences[0].shape[1]
    taken, given = ([edge.value for edge in edges] for edges in (operation.body.inputs, operation.body.outputs))
    outputs: list[Tensor] = []
    for index in range(count - 1, -1, -1) if operation.reverse else range(count):
        entries = [sequence[:, index] for sequence in sequences]
        results = step(dict(zip(taken, (*entries, *states), strict=True)))
        *states, output = (results[name] for name in given)
        outputs.append(output)
    return torch.stack(outputs[::-1] if operation.reverse else outputs, 1), *states
