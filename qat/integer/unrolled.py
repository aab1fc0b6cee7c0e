"""A program without loops: each step of a sequence as operations of its own, for runtimes that have no loop."""

import dataclasses

from qat.integer.kernels import compute
from qat.integer.operations import Concatenate, Loop, Operation, Reshape, Slice
from qat.integer.program import IntegerProgram
from qat.integer.values import AnyGrid, Constant, Value


def unrolled(program: IntegerProgram) -> IntegerProgram:
    """`program`, of one length, with its loops written out; itself where it has none.

    What a step makes of constants alone, such as of first states, is a constant.
    """
    if not any(isinstance(operation, Loop) for operation in program.operations):
        return program
    made = _Unrolled(program)
    for operation in program.operations:
        if isinstance(operation, Loop):
            made.loop(operation)
        else:
            made.operations.append(operation)
    return dataclasses.replace(
        program,
        values=tuple(each for each in made.known.values() if isinstance(each, Value)),
        constants=tuple(each for each in made.known.values() if isinstance(each, Constant)),
        operations=tuple(made.operations),
    )


class _Unrolled:
    """The operations so far, and the values and constants by name."""

    def __init__(self, program: IntegerProgram) -> None:
        self.known: dict[str, Value | Constant] = {entry.name: entry for entry in (*program.values, *program.constants)}
        self.operations: list[Operation] = []

    def loop(self, loop: Loop) -> None:
        """The steps of a loop, what they stack, and the states behind the last."""
        count, body = self.known[loop.sequences[0]].shape[0], loop.body
        for constant in body.constants:
            name = f"{loop.name}/{constant.name}"
            self.known[name] = dataclasses.replace(constant, name=name)
        states, outputs = list(loop.states), []
        for step in range(count - 1, -1, -1) if loop.reverse else range(count):
            prefix = f"{loop.name}/{step}"
            taken = (*(self._entry(loop, name, step, prefix) for name in loop.sequences), *states)
            names = {constant.name: f"{loop.name}/{constant.name}" for constant in body.constants}
            names |= {edge.value: name for edge, name in zip(body.inputs, taken, strict=True)}
            for operation in body.operations:
                self._step(operation, names, prefix, body)
            *states, output = (names[edge.value] for edge in body.outputs)
            outputs.append(output)
        for state, last in zip(states, loop.last, strict=True):
            self._moved(Reshape, last, loop.source, (state,), shape=tuple(self.known[last].shape))
        stacked = []
        for output in outputs[::-1] if loop.reverse else outputs:
            name, shape = f"{loop.name}/{len(stacked)}/stacked", (1, *self.known[output].shape)
            stacked.append(self._moved(Reshape, name, loop.source, (output,), shape=shape))
        self._moved(Concatenate, loop.output, loop.source, tuple(stacked), dim=1)

    def _entry(self, loop: Loop, name: str, step: int, prefix: str) -> str:
        """The entry of a sequence for one step."""
        shape, place = tuple(self.known[name].shape), f"{prefix}/of/{name}"
        rest = len(shape) - 1
        cut = dict(starts=(step, *[0] * rest), ends=(step + 1, *shape[1:]), steps=(1,) * len(shape))
        taken = self._moved(Slice, f"{place}/cut", loop.source, (name,), **cut)
        return self._moved(Reshape, place, loop.source, (taken,), shape=shape[1:])

    def _moved(self, kind: type[Operation], name: str, source: str, inputs: tuple[str, ...], **settings) -> str:
        operation = kind(name=name, source=source, inputs=inputs, output=name, **settings)
        shape = operation.output_shape(*(self.known[each].shape for each in inputs))
        return self._add(operation, shape, self.known[inputs[0]].grid)

    def _step(self, operation: Operation, names: dict[str, str], prefix: str, body: IntegerProgram) -> None:
        """One operation of the body, as that of a step. names: of the body's values, and it adds its own."""
        name, value = f"{prefix}/{operation.output}", body.value(operation.output)
        inputs = tuple(names[each] for each in operation.inputs)
        made = dataclasses.replace(operation, name=f"{prefix}/{operation.name}", inputs=inputs, output=name)
        names[operation.output] = self._add(made, value.shape, value.grid)

    def _add(self, operation: Operation, shape: tuple[int, ...], grid: AnyGrid) -> str:
        sources, name = [self.known[each] for each in operation.inputs], operation.output
        if all(isinstance(each, Constant) for each in sources):
            codes = compute(operation, [each.codes[None] for each in sources], [each.grid for each in sources], grid)
            self.known[name] = Constant(name, grid, codes[0])
            return name
        self.known[name] = Value(name, tuple(shape), grid)
        self.operations.append(operation)
        return name
