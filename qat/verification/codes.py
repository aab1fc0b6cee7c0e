"""Output codes, and how those of one backend differ from those of another."""

from collections.abc import Mapping

import torch
from torch import Tensor

from qat.integer.interpreter import from_edge
from qat.integer.program import IntegerProgram, Output
from qat.integer.values import AnyGrid, IndexRange
from qat.verification.report import Mismatch


def codes_of(output: Tensor, grid: AnyGrid) -> Tensor:
    """The codes that a real output stands for: round(output / scale) + zero_point, int64, not clamped.

    Indices stand for themselves.
    """
    if isinstance(grid, IndexRange):
        return output.detach().to("cpu", torch.int64)
    steps = torch.round(output.detach().to("cpu", torch.float32) / torch.tensor(grid.scale, dtype=torch.float32))
    return steps.to(torch.int64) + grid.zero_point


def compare(program: IntegerProgram, expected: Mapping[str, Tensor], actual: Mapping[str, Tensor]) -> Mismatch:
    """The codes of outputs by name that differ."""
    found = Mismatch(0, 0, 0)
    for edge in program.outputs:
        grid = program.value(edge.value).grid
        codes = [_codes_at(edge, output[edge.name], grid) for output in (expected, actual)]
        distance = (codes[0] - codes[1]).abs()
        found += Mismatch(int(distance.count_nonzero()), distance.numel(), int(distance.max()))
    return found


def _codes_at(edge: Output, output: Tensor, grid: AnyGrid) -> Tensor:
    """The codes of an output, int64; a network gives real numbers also where the program's edge carries codes."""
    if edge.codes and not output.is_floating_point():
        return from_edge(output, grid, edge.codes).to(torch.int64)
    return codes_of(output, grid)
