"""Inputs that files are checked on, and what the program makes of them."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from qat.integer.interpreter import run_real, to_edge
from qat.integer.program import IntegerProgram

#: Batch sizes of the check after writing: a single sample, and odd ones that are no multiple of a vector's width.
#: Other lengths than the recorded one are checked with the first two.
CHECK_BATCHES = (1, 7, 3)
CHECK_SEED = 20


def random_inputs(
    program: IntegerProgram, sizes: Sequence[int] = CHECK_BATCHES, any_length: bool = True, seed: int = CHECK_SEED
) -> Iterator[dict[str, Tensor]]:
    """Inputs by name, of random codes, in the dtypes of their edges. sizes: of the batches.

    any_length: also of other lengths than the recorded one, where the program takes such.
    """
    generator = torch.Generator().manual_seed(seed)
    others = [
        program.at(**{entry.symbol: length})
        for entry in (program.lengths if any_length else ())
        for length in entry.samples(longest=entry.recorded + 3)
    ]
    cases = [(size, program) for size in sizes] + [(size, case) for size in sizes[:2] for case in others]
    for size, case in cases:
        inputs = {}
        for edge in case.inputs:
            value = case.value(edge.value)
            limits = value.grid.quant_min, value.grid.quant_max + 1
            codes = torch.randint(*limits, (size, *value.shape), generator=generator)
            inputs[edge.name] = to_edge(codes, value.grid, edge.codes)
        yield inputs


def outputs_by_name(program: IntegerProgram, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What the program makes of inputs by name, by the names of the outputs."""
    outputs = run_real(program, inputs)
    if isinstance(outputs, dict):
        return outputs
    tensors = (outputs,) if isinstance(outputs, Tensor) else outputs
    return dict(zip((edge.name for edge in program.outputs), tensors, strict=True))
