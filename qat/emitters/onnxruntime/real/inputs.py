"""Random inputs to compare a file on."""

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

from qat.errors import ExportError
from qat.real.nodes import RealInput
from qat.real.program import RealProgram

CHECK_BATCHES = (1, 3)
CHECK_SEED = 20
#: How many integers random inputs are among: as many as tables have rows, those of a mask, or 0 alone.
INTEGER_LIMITS = (2**31, 2, 1)
#: What torch raises for a length that does not fit, or an integer that is no row of a table.
_OF_SIZES_AND_INTEGERS = (IndexError, RuntimeError, ZeroDivisionError)


def random_inputs(program: RealProgram) -> Iterator[dict[str, Tensor]]:
    """Inputs by name: of several batches, of the recorded lengths and, where that can be, of shorter ones.

    Integers are of the range that tables tell; where the network cannot take those, smaller ones.
    """
    generator = torch.Generator().manual_seed(CHECK_SEED)
    symbols = {size for edge in program.inputs for size in edge.shape if isinstance(size, str)} - {"batch"}
    for batch, shorter in itertools.product(CHECK_BATCHES, (False, True) if symbols else (False,)):
        for limit in INTEGER_LIMITS:
            inputs = {edge.name: _random(edge, batch, shorter, limit, generator) for edge in program.inputs}
            try:
                program.run(inputs)
            except _OF_SIZES_AND_INTEGERS as error:
                reason = error
                continue
            yield inputs
            break
        else:
            if not shorter:
                raise ExportError(
                    f"the program takes no random inputs to compare its file on ({reason}); give it other examples."
                ) from reason


def _random(edge: RealInput, batch: int, shorter: bool, limit: int, generator: torch.Generator) -> Tensor:
    sizes = [
        batch if size == "batch" else max(recorded // 2, 1) if shorter and isinstance(size, str) else recorded
        for size, recorded in zip(edge.shape, edge.recorded, strict=True)
    ]
    if edge.dtype == "float32":
        return torch.randn(sizes, generator=generator)
    return torch.randint(min(edge.count, limit), sizes, generator=generator)
