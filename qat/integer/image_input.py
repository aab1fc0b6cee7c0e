"""A program that takes raw pictures: what scales and normalizes them is a table ahead of its first operation."""

import dataclasses

import torch
from torch import Tensor

from qat.errors import ProgramError
from qat.integer.images import PIXELS, ImageScaling, check_fits
from qat.integer.operations import Operation, Table, Transpose
from qat.integer.program import Input, IntegerProgram
from qat.integer.values import Grid, Value

#: Names of what stands between the picture and the network, behind the input's own.
_CHANNELS_FIRST, _NORMALIZE = "channels_first", "normalize"


def with_image_input(program: IntegerProgram, scaling: ImageScaling, name: str | None = None) -> IntegerProgram:
    """`program`, of which one input takes uint8 pictures: exactly the codes of `scaling.normalize(pictures)`.

    name: of the input; None where there is a single one. A table that changes nothing is left out.
    Raises `ProgramError` for an input that cannot be a picture, or is one already.
    """
    edge = _chosen(program, name)
    real = program.value(edge.value)
    check_fits(scaling, edge.name, real.shape, isinstance(real.grid, Grid))
    source, values, operations = real.name, [], []
    codes = scaling.table(real.grid)
    if not _is_identity(codes, real.grid):
        source = f"{real.name}/pixels"
        values.append(Value(source, real.shape, scaling.grid))
        operations.append(_table(f"{edge.name}/{_NORMALIZE}", source, real, codes))
    if scaling.channels_last:
        target, source = source, f"{real.name}/picture"
        shape, grid = (*real.shape[1:], real.shape[0]), scaling.grid if values else real.grid
        values.append(Value(source, shape, grid))
        rank = len(shape) + 1
        order = (0, rank - 1, *range(1, rank - 1))
        name = f"{edge.name}/{_CHANNELS_FIRST}"
        operations.append(Transpose(name=name, source="", inputs=(source,), output=target, permutation=order))
    inputs = tuple(
        dataclasses.replace(entry, value=source, codes=True, image=scaling) if entry is edge else entry
        for entry in program.inputs
    )
    return dataclasses.replace(
        program,
        inputs=inputs,
        values=(*reversed(values), *program.values),
        operations=(*reversed(operations), *program.operations),
    )


def without_image_inputs(program: IntegerProgram) -> IntegerProgram:
    """The program that `with_image_input` was called on: real inputs, normalized by the caller."""
    edges, made, taken_out = [], set(), set()
    for edge in program.inputs:
        if edge.image is None:
            edges.append(edge)
            continue
        steps = _steps(program, edge)
        made.update(operation.inputs[0] for operation in steps)
        taken_out.update(operation.name for operation in steps)
        real = network_input(program, edge)
        edges.append(dataclasses.replace(edge, value=real.name, codes=False, image=None))
    if not edges or edges == list(program.inputs):
        return program
    return dataclasses.replace(
        program,
        inputs=tuple(edges),
        values=tuple(value for value in program.values if value.name not in made),
        operations=tuple(operation for operation in program.operations if operation.name not in taken_out),
    )


def network_input(program: IntegerProgram, edge: Input) -> Value:
    """The value that the network itself takes, behind what makes it of pictures."""
    steps = _steps(program, edge)
    return program.value(steps[-1].output if steps else edge.value)


def check_images(program: IntegerProgram) -> None:
    """Refuse inputs whose pictures become other codes than their scaling says."""
    for edge in program.inputs:
        if edge.image is None:
            continue
        real = network_input(program, edge)
        check_fits(edge.image, edge.name, real.shape, isinstance(real.grid, Grid))
        steps = _steps(program, edge)
        kinds = [type(operation) for operation in steps]
        codes = edge.image.table(real.grid)
        tables = [operation for operation in steps if isinstance(operation, Table)]
        found = bool((tables[0].codes == codes).all()) if tables else _is_identity(codes, real.grid)
        if not found or kinds != [Transpose] * edge.image.channels_last + [Table] * len(tables):
            raise ProgramError(
                f"input {edge.name!r} does not become what its mean {list(edge.image.mean)} and std "
                f"{list(edge.image.std)} make of pictures; write it with with_image_input."
            )


def _steps(program: IntegerProgram, edge: Input) -> list[Operation]:
    """What makes the network's input of the pictures of `edge`, in order."""
    readers = {operation.inputs[0]: operation for operation in reversed(program.operations)}
    steps, value = [], edge.value
    for suffix in (_CHANNELS_FIRST, _NORMALIZE):
        operation = readers.get(value)
        if operation is not None and operation.name == f"{edge.name}/{suffix}":
            steps.append(operation)
            value = operation.output
    return steps


def _chosen(program: IntegerProgram, name: str | None) -> Input:
    """The input called `name`, or the only one."""
    names = [edge.name for edge in program.inputs]
    if name is None and len(names) > 1:
        raise ProgramError(f"the program has the inputs {', '.join(names)}; say which is the picture with input=.")
    found = [edge for edge in program.inputs if name is None or edge.name == name]
    if not found:
        raise ProgramError(f"no input is named {name!r}; choose among {', '.join(names)}.")
    if found[0].codes:
        what = "takes codes" if found[0].image is None else "is a picture already"
        raise ProgramError(f"input {found[0].name!r} {what}; call with_real_edges() first.")
    return found[0]


def _table(name: str, source: str, target: Value, codes: Tensor) -> Operation:
    """What makes the codes of `target` of pixels; one table for all channels where they have the same."""
    grid = target.grid
    if bool((codes == codes[0]).all()):
        codes = codes[0]
    return Table(
        name=name,
        source="",
        inputs=(source,),
        output=target.name,
        codes=codes.contiguous(),
        clamp_min=grid.quant_min,
        clamp_max=grid.quant_max,
    )


def _is_identity(codes: Tensor, grid: Grid) -> bool:
    """Whether every pixel is its own code, counted from 0."""
    return grid.bits == 8 and bool((codes.to(torch.int32) + grid.unsigned_offset == torch.arange(PIXELS)).all())
