"""What makes a program sound: checked once, when it is made or loaded, so that nothing after needs to ask."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

from qat.errors import ProgramError
from qat.integer.lengths import Length, lengths_in
from qat.integer.operations import ComputingOperation, Operation
from qat.integer.operations.base import INT32_MAX
from qat.integer.values import Constant, IndexRange, Value

if TYPE_CHECKING:
    from qat.integer.program import IntegerProgram

OUTPUT_STRUCTURES = ("tensor", "tuple", "dict")
Known = Mapping[str, Value | Constant]


def check_edges(program: "IntegerProgram") -> None:
    """Refuse a program without inputs or outputs, with names used twice, or with more outputs than it can return."""
    if program.output_structure not in OUTPUT_STRUCTURES:
        raise ProgramError(
            f"output_structure is {program.output_structure!r}; choose one of {', '.join(OUTPUT_STRUCTURES)}."
        )
    if not program.inputs or not program.outputs:
        raise ProgramError(
            f"a program has {len(program.inputs)} inputs and {len(program.outputs)} outputs; it needs both."
        )
    if program.output_structure == "tensor" and len(program.outputs) != 1:
        raise ProgramError(f"{len(program.outputs)} outputs cannot be returned as one tensor; use 'tuple' or 'dict'.")
    _check_unique([edge.name for edge in (*program.inputs, *program.outputs)], "inputs and outputs")
    _check_unique([edge.value for edge in program.inputs], "values of inputs")
    parts = (program, *program.bodies)
    entries = [entry.name for part in parts for entry in (*part.values, *part.constants)]
    _check_unique(entries, "values and constants")
    _check_unique([operation.name for part in parts for operation in part.operations], "operations")
    for edge in (*program.inputs, *program.outputs):
        known = program.named.get(edge.value)
        if edge.codes and known is not None and isinstance(known.grid, IndexRange):
            raise ProgramError(f"{edge.name!r} holds indices, which are integers as they are; leave its codes=False.")


def _check_unique(names: list[str], what: str) -> None:
    seen = set()
    for name in names:
        if name in seen:
            raise ProgramError(f"two {what} are named {name!r}; give each a name of its own.")
        seen.add(name)


def check_order(program: "IntegerProgram") -> None:
    """Every value is made once, before it is used; every value is made by something."""
    declared = {value.name for value in program.values}
    made = {constant.name for constant in program.constants}
    for edge in program.inputs:
        if edge.value not in declared:
            raise ProgramError(f"input {edge.name!r} goes to a value {edge.value!r} that is not declared.")
        made.add(edge.value)
    for operation in program.operations:
        for name in operation.inputs:
            if name not in made:
                raise operation.error(f"uses {name!r}, which nothing before it makes")
        for name in operation.outputs:
            if name not in declared or name in made:
                state = "made twice" if name in made else "not declared"
                raise operation.error(f"makes {name!r}, a value that is {state}")
            made.add(name)
    for edge in program.outputs:
        if edge.value not in made or edge.value not in declared:
            raise ProgramError(f"output {edge.name!r} comes from a value {edge.value!r} that nothing makes.")
    if unmade := declared - made:
        raise ProgramError(f"nothing makes the value {min(unmade)!r}.")


def check_lengths(program: "IntegerProgram") -> None:
    """Refuse sizes that follow no input, and a program that does not fit together at a shorter length."""
    recorded = {entry.symbol: entry.recorded for entry in program.lengths}
    _check_unique([entry.symbol for entry in program.lengths], "lengths")
    for length in lengths_in((program.values, program.operations, program.constants)):
        if recorded.get(length.symbol) != length.recorded:
            raise ProgramError(
                f"a size follows {length.symbol!r}, recorded with {length.recorded}, which is no length of the program."
            )
    for operation in program.operations:
        for field in dataclasses.fields(operation):
            if field.name not in operation.follows_length and any(lengths_in(getattr(operation, field.name))):
                raise operation.error(
                    f"has a {field.name} that follows the length of an input; it is one for all lengths"
                )
    for entry in program.lengths:
        if input_of(program, entry.symbol) is None:
            raise ProgramError(
                f"no input has {entry.symbol!r} as the size of a dimension; name only lengths of inputs."
            )
        for length in entry.samples():
            try:
                program.at(**{entry.symbol: length})
            except ProgramError as error:
                raise ProgramError(f"with {entry.symbol} {length}: {error}") from error


def input_of(program: "IntegerProgram", symbol: str) -> tuple[str, int] | None:
    """(name of an input, dimension) whose size is the length `symbol` itself; None where there is none."""
    for edge in program.inputs:
        for dim, size in enumerate(program.named[edge.value].shape, start=1):
            if isinstance(size, Length) and size.describe() == symbol:
                return edge.name, dim
    return None


def check_operation(operation: Operation, known: Known) -> None:
    """Refuse an operation whose shapes, grids or multipliers do not fit, or whose accumulator could overflow."""
    sources = [known[name] for name in operation.inputs]
    output, *others = (known[name] for name in operation.outputs)
    check_operands(operation, sources)
    _check_shape(operation, sources, output)
    _check_grids(operation, sources, output)
    operation.check_between(sources, output, *others)
    _check_accumulator(operation, known)


def check_operands(operation: Operation, sources: list[Value | Constant]) -> None:
    """Refuse constants and indices where the operation takes none."""
    constants = [source.name for source in sources if isinstance(source, Constant)]
    if constants and not operation.takes_constants:
        raise operation.error(f"takes a constant, {constants[0]!r}, but only values can be its inputs; fold it")
    if len(constants) == len(sources):
        raise operation.error(f"takes nothing but constants, {', '.join(map(repr, constants))}; fold them")
    indices = [source.name for source in sources if isinstance(source.grid, IndexRange)]
    if indices and not operation.takes_indices:
        raise operation.error(f"takes {indices[0]!r}, which are indices, not codes of real numbers; use a Table first")


def _check_shape(operation: Operation, sources: list[Value | Constant], output: Value) -> None:
    expected = operation.output_shape(*(source.shape for source in sources))
    if tuple(expected) != tuple(output.shape):
        raise operation.error(f"makes {tuple(expected)}, but {output.name!r} is declared {output.shape}")


def _check_grids(operation: Operation, sources: list[Value | Constant], output: Value) -> None:
    grid = output.grid
    if not isinstance(operation, ComputingOperation):
        expected = operation.output_grid(*sources)
        # indices may be declared to reach further: where a length is added up, as far as the recorded one
        covered = isinstance(expected, IndexRange) and isinstance(grid, IndexRange) and expected.count <= grid.count
        if expected != grid and not covered:
            raise operation.error(
                f"moves {sources[0].name!r} to codes on {expected}, but {output.name!r} is on {grid}; put a Requantize "
                "between"
            )
    elif isinstance(grid, IndexRange):
        raise operation.error(f"computes codes of real numbers, but {output.name!r} holds indices; give it a Grid")
    elif not grid.quant_min <= operation.clamp_min <= operation.clamp_max <= grid.quant_max:
        raise operation.error(
            f"clamps to {operation.clamp_min}..{operation.clamp_max}; that must ascend and lie inside its grid's "
            f"{grid.quant_min}..{grid.quant_max}"
        )


def accumulator_reach(operation: ComputingOperation, known: Known) -> int:
    """Largest magnitude that an accumulator of `operation` can take for any input."""
    return operation.reach([known[name] for name in operation.inputs], known[operation.output])


def _check_accumulator(operation: Operation, known: Known) -> None:
    if not isinstance(operation, ComputingOperation):
        return
    sources, output = [known[name] for name in operation.inputs], known[operation.output]
    reach, limit = operation.reach(sources, output), operation.accumulator_limit(sources, output)
    if reach > limit:
        kind = "int32" if limit == INT32_MAX else "sums of wide codes"
        raise operation.error(
            f"can accumulate up to {reach}, beyond the {limit} of {kind}; give it fewer weight "
            "or activation bits, or look for a batch norm whose scale is near 0"
        )
