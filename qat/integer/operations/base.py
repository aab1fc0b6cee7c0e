"""What all operations of an integer program have in common.

Conventions. Dimension numbers count the batch, which is dimension 0 and is never reduced, moved or cut. Tuples with one
entry per dimension (a slice's starts, a pad's amounts) start at dimension 1. Operations that compute have an output
grid of their own and clamp to clamp_min..clamp_max, codes inside it (a fused relu is clamp_min = zero_point).
Operations that only move or choose codes (MovingOperation) have a grid that follows from their inputs.
Every operation tells its output shape from its inputs' shapes, all without the batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from qat.errors import ProgramError
from qat.integer.fixed_point import NARROW_BITS, Multiplier
from qat.integer.geometry import Shape
from qat.integer.sixteen_bits import FixedMultiplier
from qat.integer.values import AnyGrid, Constant, Grid, Value, check_name

INT32_MAX = 2**31 - 1
#: Sums of products of 16-bit codes are added in 64 bits, and stay inside of them times a mantissa.
WIDE_MAX = 2**37 - 1
#: What a sum, a product or a code is rescaled by: as float32 does it, or as kernels of 16-bit codes.
AnyMultiplier = Multiplier | FixedMultiplier


@dataclass(frozen=True, eq=False, kw_only=True)
class Operation:
    """name: unique in the program. source: path of the module it came from. inputs, output: names of values."""

    name: str
    source: str
    inputs: tuple[str, ...]
    output: str

    #: How many inputs the operation takes; None: one or more.
    arity: ClassVar[int | None] = 1
    #: Whether some of the inputs, not all, may be constants.
    takes_constants: ClassVar[bool] = False
    #: Whether inputs may be indices (`IndexRange`) instead of codes of real numbers.
    takes_indices: ClassVar[bool] = False
    #: Fields whose numbers may follow the length of an input (`qat.integer.lengths.Length`).
    follows_length: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self):
        check_name(self.name, "an operation")
        if len(self.inputs) != self.arity if self.arity is not None else not self.inputs:
            raise self.error(f"takes {self.arity or 'at least 1'} inputs, not {len(self.inputs)}")
        self.check()

    @property
    def outputs(self) -> tuple[str, ...]:
        """Every value that the operation makes, `output` first."""
        return (self.output,)

    def check(self) -> None:
        """Refuse fields that contradict one another."""

    def output_shape(self, *shapes: Shape) -> Shape:
        """Shape of the output, without the batch."""
        return shapes[0]

    def refitted(self, sources: Sequence[Value | Constant], output: Value) -> "Operation":
        """The operation for inputs of another length, where fields of it follow from their shapes."""
        return self

    def check_between(self, sources: Sequence[Value | Constant], output: Value, *others: Value) -> None:
        """Refuse fields that do not follow from the grids and shapes of the inputs and the outputs."""

    def error(self, problem: str) -> ProgramError:
        """An error that names this operation and where it came from."""
        origin = f" (from {self.source})" if self.source else ""
        return ProgramError(f"{type(self).__name__} {self.name!r}{origin} {problem}.")


@dataclass(frozen=True, eq=False, kw_only=True)
class ComputingOperation(Operation):
    """Has an output grid of its own, and clamps to it or to less of it."""

    clamp_min: int
    clamp_max: int

    def real_limits(self, output: Value) -> tuple[float, float | None] | None:
        """(lowest, highest) real results of the relu or clamp that the operation has taken in, (0.0, None) of a relu;
        None where its grid alone limits them."""
        grid = output.grid
        if self.clamp_max < grid.quant_max:
            low, high = (grid.scale * (code - grid.zero_point) for code in (self.clamp_min, self.clamp_max))
            return low, high
        return (0.0, None) if self.clamp_min == grid.zero_point else None

    def accumulator_limit(self, sources: Sequence[Value | Constant], output: Value) -> int:
        """What no accumulator may exceed, for any input."""
        return INT32_MAX

    def reach(self, sources: Sequence[Value | Constant], output: Value) -> int:
        """Largest magnitude that an accumulator can take, for any input."""
        return largest_reach(sources[0].grid)

    def scales(self, sources: Sequence[Value | Constant], output: Value) -> tuple[float, Tensor | float, float]:
        """What the `multiplier` follows from, where there is one: the scale of the inputs, what it is multiplied by
        (of weights float32 (O,)), and the scale of the output."""
        raise NotImplementedError

    def check_multiplier(self, sources: Sequence[Value | Constant], output: Value) -> None:
        """Refuse a `multiplier` other than the one that follows from the scales."""
        if not self.multiplier.equals(self.multiplier.remade(*self.scales(sources, output))):
            raise self.error(
                "has multipliers that are not fl32(fl32(input scale * weight scale) / output scale) of its grids"
            )


@dataclass(frozen=True, eq=False, kw_only=True)
class MovingOperation(Operation):
    """Moves or chooses codes; the grid of the output follows from the inputs."""

    takes_indices: ClassVar[bool] = True

    def output_grid(self, *sources: Value | Constant) -> AnyGrid:
        """The grid of the output; by default that of the inputs, which is one."""
        return self.common_grid(sources)

    def common_grid(self, sources: Sequence[Value | Constant]) -> AnyGrid:
        """The one grid of all `sources`."""
        first, *others = sources
        for other in others:
            if other.grid != first.grid:
                raise self.error(
                    f"moves {first.name!r} on {first.grid} and {other.name!r} on {other.grid} to one value; put a "
                    "Requantize between"
                )
        return first.grid


def check_single(operation: Operation, multiplier: AnyMultiplier) -> None:
    """Refuse all but one multiplier."""
    if multiplier.mantissa.shape != (1,):
        raise operation.error(f"has {multiplier.mantissa.numel()} multipliers; it takes a single one")


def limit_of_products(sources: Sequence[Value | Constant], output: Value) -> int:
    """What no sum of products may exceed: the limit of int32, of codes of more than 8 bits that stay so `WIDE_MAX`."""
    wide = output.grid.bits > NARROW_BITS and any(source.grid.bits > NARROW_BITS for source in sources)
    return WIDE_MAX if wide else INT32_MAX


def largest_reach(grid: Grid) -> int:
    """Largest magnitude of `code - zero_point`."""
    return max(map(abs, grid.reach))
