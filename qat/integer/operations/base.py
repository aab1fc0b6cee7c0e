"""What all operations of an integer program have in common.

Conventions. Dimension numbers count the batch, which is dimension 0 and is never reduced, moved or cut. Tuples with one
entry per dimension (a slice's starts, a pad's amounts) start at dimension 1. Operations that compute have an output
grid of their own and clamp to clamp_min..clamp_max, codes inside it (a fused relu is clamp_min = zero_point).
Operations that only move or choose codes (MovingOperation) have a grid that follows from their inputs.
Every operation tells its output shape from its inputs' shapes, all without the batch.
"""

from dataclasses import dataclass
from typing import ClassVar

from qat.errors import ProgramError
from qat.integer.fixed_point import Multiplier
from qat.integer.geometry import Shape
from qat.integer.values import check_name


@dataclass(frozen=True, eq=False, kw_only=True)
class Operation:
    """name: unique in the program. source: path of the module it came from. inputs, output: names of values."""

    name: str
    source: str
    inputs: tuple[str, ...]
    output: str

    #: How many inputs the operation takes; None: one or more.
    arity: ClassVar[int | None] = 1

    def __post_init__(self):
        check_name(self.name, "an operation")
        if len(self.inputs) != self.arity if self.arity is not None else not self.inputs:
            raise self.error(f"takes {self.arity or 'at least 1'} inputs, not {len(self.inputs)}")
        self.check()

    def check(self) -> None:
        """Refuse fields that contradict one another."""

    def output_shape(self, *shapes: Shape) -> Shape:
        """Shape of the output, without the batch."""
        return shapes[0]

    def error(self, problem: str) -> ProgramError:
        """An error that names this operation and where it came from."""
        origin = f" (from {self.source})" if self.source else ""
        return ProgramError(f"{type(self).__name__} {self.name!r}{origin} {problem}.")


@dataclass(frozen=True, eq=False, kw_only=True)
class ComputingOperation(Operation):
    """Has an output grid of its own, and clamps to it or to less of it."""

    clamp_min: int
    clamp_max: int


@dataclass(frozen=True, eq=False, kw_only=True)
class MovingOperation(Operation):
    """Moves or chooses codes; the grid of the output is that of the inputs."""


def check_single(operation: Operation, multiplier: Multiplier) -> None:
    if multiplier.mantissa.shape != (1,):
        raise operation.error(f"has {multiplier.mantissa.numel()} multipliers; it takes a single one")
