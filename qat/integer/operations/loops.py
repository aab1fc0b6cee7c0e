"""Recurrences: a program of one step, run for every step of a sequence."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from qat.integer.operations.base import Operation
from qat.integer.values import AnyGrid

if TYPE_CHECKING:
    from qat.integer.program import IntegerProgram


@dataclass(frozen=True, eq=False, kw_only=True)
class Loop(Operation):
    """One step after another, each with the states that the step before it left.

    inputs: sequences (L, ...), whose dimension 1 are the steps, and behind them the first states; some of all these
    may be constants. There are as many steps as the sequences have: no field tells how many.
    body: one step. Its inputs are an entry of each sequence and the states, its outputs the next states and, last, what
    is stacked to `output` (L, ...). They carry codes, and it holds no loop itself.
    last: the values of the states behind the last step. reverse: begin at the end of the sequences; the output has
    their order all the same.
    """

    body: "IntegerProgram"
    last: tuple[str, ...]
    reverse: bool

    arity: ClassVar[int | None] = None
    takes_constants: ClassVar[bool] = True

    @property
    def outputs(self) -> tuple[str, ...]:
        return (self.output, *self.last)

    @property
    def sequences(self) -> tuple[str, ...]:
        """The inputs that are taken step by step."""
        return self.inputs[: len(self.inputs) - len(self.last)]

    @property
    def states(self) -> tuple[str, ...]:
        """The inputs that are the first states."""
        return self.inputs[len(self.inputs) - len(self.last) :]

    def check(self):
        body = self.body
        if body.lengths or any(isinstance(operation, Loop) for operation in body.operations):
            raise self.error("has a loop or a length in its body; a step has a fixed shape and no loop inside")
        if body.float_operations:
            raise self.error(
                f"has {body.float_operations[0].name!r} in its body, a float island; a step computes with integers, so "
                "drop the rule that leaves it in float"
            )
        if body.output_structure != "tuple" or not all(edge.codes for edge in (*body.inputs, *body.outputs)):
            raise self.error("has a body that takes or gives real numbers; its edges carry codes, its outputs a tuple")
        if not self.sequences or not self.last or len(body.inputs) != len(self.inputs):
            raise self.error(
                f"has {len(self.inputs)} inputs, {len(self.last)} of them states, and a body of {len(body.inputs)} "
                "inputs; it takes a sequence or more and a state or more, and its body as many"
            )
        if len(body.outputs) != len(self.last) + 1:
            raise self.error(
                f"has {len(self.last)} states and a body of {len(body.outputs)} outputs; that gives the next states "
                "and one output"
            )

    def output_shape(self, *shapes):
        lengths = [shape[:1] for shape in shapes[: len(self.sequences)]]
        if not all(lengths) or len(set(lengths)) > 1:
            raise self.error(
                f"has sequences of {list(map(tuple, shapes[: len(lengths)]))}, whose steps are not as many"
            )
        return (*lengths[0], *self._entry(self.body.outputs[-1]).shape)

    def output_grid(self, *sources) -> AnyGrid:
        """The grid of the output: what the body gives."""
        return self._entry(self.body.outputs[-1]).grid

    def check_between(self, sources, output, *last):
        sequences = len(self.sequences)
        for index, (source, edge) in enumerate(zip(sources, self.body.inputs, strict=True)):
            shape = source.shape[1:] if index < sequences else source.shape
            self._check_fits(source.name, tuple(shape), source.grid, self._entry(edge), "the body takes")
        for value, edge, source in zip(last, self.body.outputs, sources[sequences:], strict=False):
            self._check_fits(value.name, tuple(value.shape), value.grid, self._entry(edge), "the body gives")
            self._check_fits(source.name, tuple(source.shape), source.grid, self._entry(edge), "the next state is")

    def _entry(self, edge):
        return self.body.value(edge.value)

    def _check_fits(self, name: str, shape: tuple, grid: AnyGrid, entry, what: str) -> None:
        if shape != tuple(entry.shape) or grid != entry.grid:
            raise self.error(f"has {name!r} of {shape} on {grid}, but {what} {tuple(entry.shape)} on {entry.grid}")
