"""What TensorRT cannot run of a program, told before anything is written."""

from collections.abc import Iterable, Iterator

from qat.emitters.refused import Refusal
from qat.integer import operations as ops
from qat.integer.fixed_point import SumMultipliers
from qat.integer.geometry import Shape
from qat.integer.operations import MovingOperation, Operation
from qat.integer.program import IntegerProgram
from qat.integer.values import INT8_MAX, INT8_MIN, Constant, Grid, Value

#: TensorRT's tensors have eight dimensions, of which the batch is one.
MAX_RANK = 7


def refusals(program: IntegerProgram) -> list[Refusal]:
    """What TensorRT does not run of `program`; empty: it will be written."""
    found = _of_grids(program)
    for operation in program.operations:
        shapes = [program.value(name).shape for name in (*operation.inputs, *operation.outputs)]
        found += _of_operation(operation, shapes)
    return found


def pictures(program: IntegerProgram) -> frozenset[str]:
    """Values that hold the pixels 0..255 of an input, however they are moved; they are no int8 tensors."""
    held = {edge.value for edge in program.inputs if edge.codes and not is_int8(program.value(edge.value))}
    for operation in program.operations:
        if isinstance(operation, MovingOperation) and len(operation.inputs) == 1 and held.issuperset(operation.inputs):
            held.add(operation.output)
    return frozenset(held)


def is_int8(value: Value | Constant) -> bool:
    """Whether codes of that are int8 with zero point 0, or indices."""
    grid = value.grid
    if not isinstance(grid, Grid):
        return True
    return grid.zero_point == 0 and INT8_MIN <= grid.quant_min and grid.quant_max <= INT8_MAX


def _of_grids(program: IntegerProgram) -> list[Refusal]:
    pixels, factors = pictures(program), _constant_factors(program)
    found = [
        Refusal.of_value(
            entry.name,
            f"its codes are not the {INT8_MIN}..{INT8_MAX} around 0 that TensorRT's INT8 kernels take",
            "prepare the network with target=tensorrt, and leave the activations' grids to it (signed and symmetric "
            "null)",
            f"{entry.grid.quant_min}..{entry.grid.quant_max} with zero point {entry.grid.zero_point}",
        )
        for entry in program.named.values()
        if not is_int8(entry) and entry.name not in pixels | factors
    ]
    for operation in program.operations:
        looked_up = isinstance(operation, ops.Table) or operation.output in pixels
        if not looked_up and pixels.intersection(operation.inputs):
            found.append(
                Refusal.of(operation, "it reads pixels of 0..255", "normalize them with program.with_image_input")
            )
    return found


def _constant_factors(program: IntegerProgram) -> frozenset[str]:
    """Constants of at most 8 bits that are factors of matrix products alone: those may have any codes."""
    constants = {entry.name for entry in program.constants if isinstance(entry.grid, Grid) and entry.grid.bits <= 8}
    others = (operation for operation in program.operations if not isinstance(operation, ops.MatMul))
    return frozenset(constants.difference(*(operation.inputs for operation in others)))


def _of_operation(operation: Operation, shapes: Iterable[Shape]) -> Iterator[Refusal]:
    if isinstance(operation, ops.FloatIsland):
        yield Refusal.of_island(operation)
    elif isinstance(operation, ops.Loop):
        yield Refusal.of(
            operation, "loops have no INT8 kernel", "unroll it over a fixed length, or export for onnxruntime"
        )
    elif any(len(shape) > MAX_RANK for shape in shapes):
        rank = max(map(len, shapes)) + 1
        yield Refusal.of(
            operation, f"TensorRT has {MAX_RANK + 1} dimensions with the batch", "use fewer", f"here are {rank}"
        )
    elif isinstance(operation, ops.MaxPool) and set(operation.dilation) != {1}:
        yield Refusal.of(
            operation, "TensorRT pools windows without dilation", "use dilation 1", f"here {operation.dilation}"
        )
    elif isinstance(operation, ops.Add) and not isinstance(operation.factors, SumMultipliers):
        yield Refusal.of(
            operation,
            "it rounds as another runtime does",
            "export the program with qat.export(program, path, 'tensorrt')",
        )
