"""A program in the making: its edges, values and operations, whose shapes follow from one another."""

from torch import Tensor

from qat.errors import ProgramError
from qat.integer.checks import check_operands
from qat.integer.lengths import LengthRange, lengths_in
from qat.integer.operations import MovingOperation, Operation
from qat.integer.program import Input, IntegerProgram, Output
from qat.integer.values import AnyGrid, Constant, IndexRange, Value

Clamp = tuple[int, int] | None


class Assembly:
    """Collects the parts of a program; shapes, and the grids of what only moves, follow from what is given."""

    def __init__(self) -> None:
        self._inputs: list[Input] = []
        self._outputs: list[Output] = []
        self._operations: list[Operation] = []
        self._known: dict[str, Value | Constant] = {}

    def input(self, name: str, shape: tuple[int, ...], grid: AnyGrid) -> str:
        """An input of `shape`, without the batch: real, or integers of an `IndexRange`."""
        self._inputs.append(Input(name, name))
        self._known[name] = Value(name, tuple(shape), grid)
        return name

    def constant(self, name: str, codes: Tensor, grid: AnyGrid, sizes: tuple[int, ...] = ()) -> str:
        """A constant operand, for operations that take one. codes: any integer dtype, without the batch.

        sizes: its shape, where some of it follow a length.
        """
        self._known[name] = Constant(name, grid, codes.to(grid.dtype), sizes)
        return name

    def output(self, name: str, source: str) -> None:
        """An output called `name`, real or integers as its value is."""
        self._outputs.append(Output(name, source))

    def build(self, output_structure: str = "tensor") -> IntegerProgram:
        """The checked program, for inputs of every length up to the one that sizes were given with."""
        values = tuple(entry for entry in self._known.values() if isinstance(entry, Value))
        recorded = {size.symbol: size.recorded for size in lengths_in(values)}
        return IntegerProgram(
            inputs=tuple(self._inputs),
            outputs=tuple(self._outputs),
            values=values,
            constants=tuple(entry for entry in self._known.values() if isinstance(entry, Constant)),
            operations=tuple(self._operations),
            output_structure=output_structure,
            lengths=tuple(LengthRange(symbol, 1, most, most) for symbol, most in recorded.items()),
        )

    def grid(self, source: str) -> AnyGrid:
        """The grid of a value."""
        return self._known[source].grid

    def scale(self, source: str) -> float:
        """The scale of a value's grid."""
        grid = self.grid(source)
        if isinstance(grid, IndexRange):
            raise ProgramError(f"{source!r} holds indices, which have no scale; use a table first.")
        return grid.scale

    def shape(self, source: str) -> tuple[int, ...]:
        """The shape of a value, without the batch."""
        return tuple(self._known[source].shape)

    def _computing(self, kind, name, sources, grid, clamp, module, **settings) -> str:
        low, high = clamp or (grid.quant_min, grid.quant_max)
        return self._append(kind, name, sources, grid, module, clamp_min=low, clamp_max=high, **settings)

    def _moving(self, kind: type[MovingOperation], name, sources, module, **settings) -> str:
        return self._append(kind, name, sources, None, module, **settings)

    def _append(self, kind: type[Operation], name, sources, grid, module, **settings) -> str:
        source = name if module is None else module
        operation = kind(name=name, source=source, inputs=tuple(sources), output=name, **settings)
        known = [self._known[entry] for entry in sources]
        check_operands(operation, known)
        shape = operation.output_shape(*(entry.shape for entry in known))
        grid = operation.output_grid(*known) if grid is None else grid
        self._known[name] = Value(name, tuple(shape), grid)
        self._operations.append(operation)
        return name
