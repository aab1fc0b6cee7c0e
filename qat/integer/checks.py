"""What makes a program sound: checked once, when it is made or loaded, so that nothing after needs to ask."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from qat.errors import ProgramError
from qat.integer.fixed_point import Multiplier, SumMultipliers
from qat.integer.operations import (
    Add,
    AveragePool,
    ComputingOperation,
    Conv,
    Linear,
    Mean,
    MovingOperation,
    Mul,
    Operation,
    Requantize,
)
from qat.integer.values import Constant, Value, float32

if TYPE_CHECKING:
    from qat.integer.program import IntegerProgram

INT32_MAX = 2**31 - 1
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
    _check_unique([entry.name for entry in (*program.values, *program.constants)], "values and constants")
    _check_unique([operation.name for operation in program.operations], "operations")


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
        if operation.output not in declared or operation.output in made:
            state = "made twice" if operation.output in made else "not declared"
            raise operation.error(f"makes {operation.output!r}, a value that is {state}")
        made.add(operation.output)
    for edge in program.outputs:
        if edge.value not in made or edge.value not in declared:
            raise ProgramError(f"output {edge.name!r} comes from a value {edge.value!r} that nothing makes.")
    if unmade := declared - made:
        raise ProgramError(f"nothing makes the value {min(unmade)!r}.")


def check_operation(operation: Operation, known: Known) -> None:
    """Refuse an operation whose shapes, grids or multipliers do not fit, or whose accumulator could leave int32."""
    _check_shape(operation, known)
    _check_grids(operation, known)
    _check_multiplier(operation, known)
    _check_accumulator(operation, known)


def _check_shape(operation: Operation, known: Known) -> None:
    expected = operation.output_shape(*(known[name].shape for name in operation.inputs))
    if tuple(expected) != tuple(known[operation.output].shape):
        raise operation.error(
            f"makes {tuple(expected)}, but {operation.output!r} is declared {known[operation.output].shape}"
        )
    if isinstance(operation, Add | Mul):
        constants = [name for name in operation.inputs if isinstance(known[name], Constant)]
        if len(constants) == 2:
            raise operation.error(f"combines two constants, {constants[0]!r} and {constants[1]!r}; fold them")
    elif any(isinstance(known[name], Constant) for name in operation.inputs):
        raise operation.error("takes a constant; only Add and Mul do")


def _check_grids(operation: Operation, known: Known) -> None:
    grid = known[operation.output].grid
    if isinstance(operation, MovingOperation):
        for name in operation.inputs:
            if known[name].grid != grid:
                raise operation.error(
                    f"moves {name!r} on {known[name].grid} to {operation.output!r} on {grid}; put a Requantize between"
                )
    elif not grid.quant_min <= operation.clamp_min <= operation.clamp_max <= grid.quant_max:
        raise operation.error(
            f"clamps to {operation.clamp_min}..{operation.clamp_max}; that must ascend and lie inside its grid's "
            f"{grid.quant_min}..{grid.quant_max}"
        )


def _check_multiplier(operation: Operation, known: Known) -> None:
    """Refuse factors that do not follow from the scales around the operation."""
    grids = [known[name].grid for name in operation.inputs]
    output = known[operation.output].grid
    match operation:
        case Add():
            if operation.factors != SumMultipliers.from_grids(*grids, output):
                raise operation.error("has factors that are not SumMultipliers.from_grids of its grids")
            return
        case Conv() | Linear():
            weight_scale = operation.weight.scale
        case Mul():
            weight_scale = grids[1].scale
        case Requantize():
            weight_scale = abs(operation.factor)
        case AveragePool() | Mean():
            weight_scale = float32(1 / _averaged_count(operation, known))
        case _:
            return
    if not operation.multiplier.equals(Multiplier.from_scales(grids[0].scale, weight_scale, output.scale)):
        raise operation.error(
            "has multipliers that are not fl32(fl32(input scale * weight scale) / output scale) of its grids"
        )


def _averaged_count(operation: AveragePool | Mean, known: Known) -> int:
    """How many codes one mean is over."""
    if isinstance(operation, AveragePool):
        return operation.count
    return math.prod(known[operation.inputs[0]].shape) // math.prod(known[operation.output].shape)


def accumulator_reach(operation: Operation, known: Known) -> int:
    """Largest magnitude that an int32 accumulator of `operation` can take for any input."""
    grids = [known[name].grid for name in operation.inputs]
    low, high = grids[0].reach
    match operation:
        case Conv() | Linear():
            kernel = operation.weight.kernel.flatten(1)
            bias = operation.bias.to(torch.int64)
            # low <= 0 <= high: a sum is extreme where positive weights meet one end and negative ones the other.
            positive = kernel.clamp(min=0).sum(1, dtype=torch.int64)
            negative = kernel.clamp(max=0).sum(1, dtype=torch.int64)
            highest, lowest = positive * high + negative * low, positive * low + negative * high
            extremes = torch.stack([highest, lowest, highest + bias, lowest + bias])
            return int(extremes.abs().max())
        case Mul():
            return max(abs(a * b) for a in (low, high) for b in grids[1].reach)
        case AveragePool() | Mean():
            return _averaged_count(operation, known) * max(-low, high)
    return max(-low, high)


def _check_accumulator(operation: Operation, known: Known) -> None:
    if not isinstance(operation, ComputingOperation):
        return
    reach = accumulator_reach(operation, known)
    if reach > INT32_MAX:
        raise operation.error(
            f"can accumulate up to {reach}, beyond the {INT32_MAX} of int32; give it fewer weight or activation bits, "
            "or look for a batch norm whose scale is near 0"
        )
