"""The rounding of each runtime: a program whose operations round as the kernels of one runtime do.

Most runtimes compute what `qat.integer.fixed_point` defines. XNNPACK, which runs LiteRT's integer kernels, agrees in
convolutions, matrix products and means, and differs in five places:
- additions round half up (`qat.integer.half_up`);
- products are rounded before the zero point is added, and so are codes that change their grid;
- products of two matrices are rescaled by integer operators, once: what its kernel rounds depends on their shapes;
- real inputs are multiplied by the reciprocal of their scale;
- weights of 4 bits and fewer are stored as such. Its kernels multiply with these codes, not with codes that were scaled
  up to 8 bits, so that the step of the bias is that of the weights.
Codes of 16 bits it leaves to TensorFlow Lite's own kernels, which compute in fixed point (`qat.integer.sixteen_bits`).

TensorRT's compiler writes kernels of its own, whose source its engines hold. It takes the reciprocal of the scale of
real inputs as well, and would fuse a product with the zero point that is added to it, so that products are rounded
without.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qat.errors import ProgramError
from qat.folding import NARROW_KERNEL_BITS, KernelWeight
from qat.integer.fixed_point import NARROW_BITS, Multiplier, SumMultipliers
from qat.integer.half_up import HalfUpMultipliers
from qat.integer.operations import (
    Add,
    AveragePool,
    ComputingOperation,
    Conv,
    Linear,
    Loop,
    MatMul,
    Mean,
    Mul,
    Operation,
    Requantize,
    Sum,
)
from qat.integer.operations.base import AnyMultiplier
from qat.integer.program import Input, IntegerProgram
from qat.integer.sixteen_bits import DOUBLE, REDUCED, FixedMultiplier, FixedSum
from qat.integer.values import AnyGrid, Constant, Grid, Value, Weight, WeightGrid

#: How the kernel of each operation multiplies sums of 16-bit codes; means are depthwise convolutions with ones, and
#: linear layers convolutions.
_FIXED: dict[type[ComputingOperation], str] = {
    Conv: REDUCED, AveragePool: REDUCED, Mean: REDUCED, Sum: REDUCED, MatMul: REDUCED, Linear: REDUCED, Mul: DOUBLE,
    Requantize: DOUBLE,
}  # fmt: skip


@dataclass(frozen=True)
class Semantics:
    """How a runtime rounds, where runtimes differ.

    sums: what the factors of an addition of 8-bit codes are. rounds_first: products, as `Mul.rounds_first` says.
    rounds_once: products of two matrices, neither of them constant, as `MatMul.rounds_once` says.
    by_reciprocal: real inputs, as `Input.by_reciprocal` says. narrow_weights: whether kernels multiply with weights of
    `NARROW_KERNEL_BITS` and fewer as they are stored. fixed_point: whether codes of more than 8 bits have kernels,
    which rescale as `qat.integer.sixteen_bits` says.
    """

    sums: type[SumMultipliers] | type[HalfUpMultipliers] = SumMultipliers
    rounds_first: bool = False
    rounds_once: bool = False
    by_reciprocal: bool = False
    narrow_weights: bool = False
    fixed_point: bool = False

    def factors(self, first: Grid, second: Grid, output: Grid) -> SumMultipliers | HalfUpMultipliers | FixedSum:
        """The factors of an addition between these grids."""
        wide = FixedSum if self.fixed_point else SumMultipliers
        return (wide if _is_wide(first, second, output) else self.sums).from_grids(first, second, output)

    def kind(self, operation: type[Operation], *grids: AnyGrid) -> str | None:
        """The kind of the `FixedMultiplier` of an operation; None where it has a `Multiplier`, or none.

        grids: of its inputs and its output.
        """
        return _FIXED.get(operation) if self.fixed_point and _is_wide(*grids) else None

    def multiplier(
        self, operation: type[Operation], grids: Sequence[AnyGrid], scales: tuple[float, Tensor | float, float]
    ) -> AnyMultiplier:
        """What an operation multiplies by. grids: of its inputs and its output. scales: `ComputingOperation.scales`."""
        kind = self.kind(operation, *grids)
        return Multiplier.from_scales(*scales) if kind is None else FixedMultiplier.from_scales(kind, *scales)

    def kernel_grid(self, grid: WeightGrid) -> WeightGrid:
        """The grid of the integers that a kernel multiplies with, from that of weights scaled up to 8 bits."""
        if not self.narrow_weights or grid.bits > NARROW_KERNEL_BITS:
            return grid
        kernel = KernelWeight(grid.step, grid.offset).narrowed()
        return WeightGrid(grid.bits, kernel.step, kernel.offset)


USUAL = Semantics()
XNNPACK = Semantics(
    HalfUpMultipliers, rounds_first=True, rounds_once=True, by_reciprocal=True, narrow_weights=True, fixed_point=True
)
TENSORRT = Semantics(rounds_first=True, by_reciprocal=True)
_BY_RUNTIME = {"litert": XNNPACK, "tensorrt": TENSORRT}


def semantics_of(runtime: str | None) -> Semantics:
    """How `runtime` rounds; None: as most do."""
    return _BY_RUNTIME.get(runtime, USUAL)


def for_runtime(program: IntegerProgram, runtime: str | None) -> IntegerProgram:
    """`program` with the rounding of `runtime`: the same values and operations on the same grids.

    Biases of weights that a kernel takes in fewer bits than the program has them are rounded to the coarser step.
    Raises `ProgramError` for scales that the runtime's kernels do not take.
    """
    semantics = semantics_of(runtime)
    operations = tuple(_with(semantics, program, operation) for operation in program.operations)
    inputs = tuple(_input(semantics, program, edge) for edge in program.inputs)
    if inputs == program.inputs and all(map(_is, operations, program.operations)):
        return program
    return dataclasses.replace(program, inputs=inputs, operations=operations)


def _is_wide(*grids: AnyGrid) -> bool:
    return any(isinstance(grid, Grid) and grid.bits > NARROW_BITS for grid in grids)


def _is(first: object, second: object) -> bool:
    return first is second


def _input(semantics: Semantics, program: IntegerProgram, edge: Input) -> Input:
    real = not edge.codes and isinstance(program.value(edge.value).grid, Grid)
    return dataclasses.replace(edge, by_reciprocal=semantics.by_reciprocal and real)


def _with(semantics: Semantics, program: IntegerProgram, operation: Operation) -> Operation:
    """The operation itself where nothing about it differs."""
    operation = _rounded(semantics, program, operation)
    sources, output = [program.value(name) for name in operation.inputs], program.value(operation.output)
    return rescaled(semantics, operation, sources, output)


def rescaled(
    semantics: Semantics, operation: Operation, sources: Sequence[Value | Constant], output: Value
) -> Operation:
    """The operation with a multiplier of the kind that the runtime's kernel has; itself where it has one."""
    held = getattr(operation, "multiplier", None)
    grids = [entry.grid for entry in (*sources, output)]
    if held is None or semantics.kind(type(operation), *grids) == getattr(held, "kind", None):
        return operation
    try:
        made = semantics.multiplier(type(operation), grids, operation.scales(sources, output))
    except ProgramError as error:
        raise operation.error(f"cannot round as the runtime does: {str(error).removesuffix('.')}") from error
    return dataclasses.replace(operation, multiplier=made)


def _rounded(semantics: Semantics, program: IntegerProgram, operation: Operation) -> Operation:
    match operation:
        case Add():
            grids = (program.value(name).grid for name in (*operation.inputs, operation.output))
            try:
                factors = semantics.factors(*grids)
            except ProgramError as error:
                raise operation.error(f"cannot round as the runtime does: {str(error).removesuffix('.')}") from error
            return operation if factors == operation.factors else dataclasses.replace(operation, factors=factors)
        case Mul() | Requantize() if operation.rounds_first != semantics.rounds_first:
            return dataclasses.replace(operation, rounds_first=semantics.rounds_first)
        case MatMul():
            values = not any(isinstance(program.value(name), Constant) for name in operation.inputs)
            once = semantics.rounds_once and values
            return operation if once == operation.rounds_once else dataclasses.replace(operation, rounds_once=once)
        case Conv() | Linear():
            source, output = program.value(operation.inputs[0]), program.value(operation.output)
            return _weighted(semantics, operation, source, output)
        case Loop():
            body = _body(semantics, operation.body)
            return operation if body is operation.body else dataclasses.replace(operation, body=body)
    return operation


def _body(semantics: Semantics, body: IntegerProgram) -> IntegerProgram:
    operations = tuple(_with(semantics, body, operation) for operation in body.operations)
    if all(map(_is, operations, body.operations)):
        return body
    return dataclasses.replace(body, operations=operations)


def _weighted(semantics: Semantics, operation: Conv | Linear, source: Value | Constant, output: Value) -> Conv | Linear:
    weight = operation.weight
    grid = semantics.kernel_grid(weight.grid)
    if grid == weight.grid:
        return operation
    unit = weight.grid.step // grid.step
    coarser = Weight(weight.codes, grid, weight.scale * unit)
    bias = torch.round(operation.bias.double() / unit).to(torch.int32)
    multiplier = operation.multiplier.remade(source.grid.scale, coarser.scale, output.grid.scale)
    return dataclasses.replace(operation, weight=coarser, bias=bias, multiplier=multiplier)
