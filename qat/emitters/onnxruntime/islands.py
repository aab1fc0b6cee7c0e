"""Float islands: operations in real numbers between integer kernels.

Those that a rule left in float (`FloatIsland`), and where `nonlinear` asks for it softmax, normalization and division.
A file with islands is not integer, and does not claim to be: `float_ops` lists them. They round as the processor's
float32 kernels do, so that some of their codes are one off; everything else is compared code for code, on the codes
that the islands gave.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike

import numpy
import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor

from qat.emitters.onnxruntime import float_functions
from qat.emitters.onnxruntime.float_nodes import FloatNodes
from qat.emitters.onnxruntime.float_nonlinear import NONLINEAR_FORMS
from qat.emitters.onnxruntime.graph import array_of
from qat.emitters.onnxruntime.session import float_ops, open_session, run_session
from qat.emitters.onnxruntime.writer import Writer, is_wide, tensor_of
from qat.errors import ExportError
from qat.integer.interpreter import named_inputs, quantize_inputs, run, to_edge
from qat.integer.operations import FloatIsland, Operation, Softmax
from qat.integer.program import IntegerProgram
from qat.integer.reals import dequantize

INT8_OFFSET = 128
#: Share of an island's codes that may be one off before something else than rounding is suspected; of random codes it
#: was 3 in 10,000.
MOST_ISLAND_CODES = 0.01
#: So many may be one off however few codes there are.
FEW_ISLAND_CODES = 2

_FORMS = {**NONLINEAR_FORMS, FloatIsland: float_functions.write}


def is_island(operation: Operation, nonlinear: str) -> bool:
    """Whether a file computes the operation in real numbers. nonlinear: as for `qat.export`."""
    return isinstance(operation, FloatIsland) or (nonlinear == "float_island" and type(operation) in NONLINEAR_FORMS)


def islands_of(program: IntegerProgram, nonlinear: str = "float_island") -> tuple[Operation, ...]:
    """The operations that a file with islands computes in real numbers: not those of codes of more than 8 bits."""
    return tuple(
        operation for operation in program.operations
        if is_island(operation, nonlinear)
        and not any(is_wide(program.value(name).grid) for name in (*operation.inputs, operation.output))
    )  # fmt: skip


def write_island(writer: Writer, operation: Operation) -> None:
    """DequantizeLinear, the float nodes of the operation, QuantizeLinear: named, so that they are known again."""
    writer.graph.naming = True
    _write_island(writer, operation)
    writer.graph.naming = False


def _write_island(writer: Writer, operation: Operation) -> None:
    target, sources = tensor_of(operation.output), []
    for index, name in enumerate(operation.inputs):
        real = f"{target}/real/{index}"
        if writer.is_constant(name):
            constant = writer.program.value(name)
            reals = array_of(dequantize(constant.codes, constant.grid))[None]
            longest = writer.graph.constant(f"{real}/longest" if constant.sizes else real, reals, numpy.float32)
            sources.append(writer.graph.cut(longest, real, constant.sizes, 1))
        else:
            sources.append(writer.graph.node("DequantizeLinear", [tensor_of(name), *writer.grid_constants(name)], real))
    result = f"{target}/real"
    _FORMS[type(operation)](FloatNodes(writer.graph, writer.program, operation, sources, result))
    if isinstance(operation, Softmax | FloatIsland):
        _quantize_apart(writer, operation, result)
    else:
        writer.limited("QuantizeLinear", [result, *writer.grid_constants(operation.output)], operation)


def _quantize_apart(writer: Writer, operation: Softmax | FloatIsland, real: str) -> None:
    """Quantize to int8 and turn that into uint8.

    Of a Softmax between a DequantizeLinear and a QuantizeLinear of one type the runtime (1.32) makes a QLinearSoftmax,
    which rounds the scale of the output to the inverse of a whole number, and takes three times as long. What a rule
    leaves in float is to stay in float, and not to become a QLinearMatMul, QLinearAdd or another of their kind.
    """
    name, target, graph = operation.output, tensor_of(operation.output), writer.graph
    grid = writer.grid(name)
    zero_point = graph.constant(
        f"{target}/signed_zero_point", grid.zero_point + grid.unsigned_offset - INT8_OFFSET, numpy.int8
    )
    codes = graph.node("QuantizeLinear", [real, writer.grid_constants(name)[0], zero_point], f"{target}/signed")
    codes = graph.node("Cast", [codes], f"{target}/wrapped", to=TensorProto.UINT8)
    top = graph.constant(f"{target}/top_bit", INT8_OFFSET, numpy.uint8)
    writer.limited("Add", [codes, top], operation)


@dataclass(frozen=True)
class IslandCodes:
    """Codes of islands that are not those of the program. largest: the largest difference."""

    differing: int = 0
    total: int = 0
    largest: int = 0

    def __add__(self, other: "IslandCodes") -> "IslandCodes":
        return IslandCodes(self.differing + other.differing, self.total + other.total, max(self.largest, other.largest))

    def __str__(self) -> str:
        return f"{self.differing} of {self.total} codes, by at most {self.largest}"


def foreign_float_ops(program: IntegerProgram, path: str | PathLike, nonlinear: str = "float_island") -> list[str]:
    """Float nodes of the file that belong to no island. nonlinear: as for `qat.export`."""
    islands = islands_of(program, nonlinear)
    prefixes = tuple(f"{tensor_of(operation.output)}/" for operation in islands)
    exact = {tensor_of(operation.output) for operation in islands}
    named = [(found, found.partition(" ")[2]) for found in float_ops(path)]
    return [found for found, name in named if not name.startswith(prefixes) and name not in exact]


def islands_in(program: IntegerProgram, path: str | PathLike) -> tuple[str, ...]:
    """Names of the operations that the file computes in real numbers, if it does so in islands alone; else none."""
    found = [name.partition(" ")[2] for name in float_ops(path)]
    if foreign_float_ops(program, path):
        return ()
    names = {operation.name: tensor_of(operation.output) for operation in islands_of(program)}
    return tuple(
        name for name, tensor in names.items() if any(node == tensor or node.startswith(f"{tensor}/") for node in found)
    )


def refuse_islands(found: IslandCodes) -> None:
    """Raise `ExportError` where islands differ by more than rounding explains."""
    if found.largest > 1 or found.differing > max(found.total * MOST_ISLAND_CODES, FEW_ISLAND_CODES):
        raise ExportError(
            f"float islands give other codes than the program for {found}; export with nonlinear=integer, and drop the "
            "rules that leave operations in float."
        )


class IslandComparison:
    """The file at `path` beside the program, where the program goes on with the codes of the file's islands."""

    def __init__(self, program: IntegerProgram, path: str | PathLike) -> None:
        self._program = program
        names = islands_in(program, path)
        self._islands = {operation.output for operation in islands_of(program) if operation.name in names}
        model = onnx.load(path, load_external_data=False)
        shown = _with_outputs(model, [tensor_of(name) for name in sorted(self._islands)])
        self._session = open_session(path, model=shown.SerializeToString())

    def __call__(self, inputs: Mapping[str, Tensor]) -> tuple[IslandCodes, dict[str, Tensor]]:
        """How the codes of the islands differ from the program's own, and what the program makes of them.

        inputs: by name. Returns outputs by name, as `program(inputs)` has them.
        """
        program = self._program
        results = run_session(self._session, inputs)
        differences: list[Tensor] = []

        def take_over(operation: Operation, codes: Tensor) -> Tensor:
            if operation.output not in self._islands:
                return codes
            grid = program.value(operation.output).grid
            found = results[tensor_of(operation.output)].to(torch.int64) - grid.unsigned_offset
            differences.append((found - codes.to(torch.int64)).abs())
            return found.to(grid.dtype)

        codes = run(program, quantize_inputs(program, named_inputs(program, inputs)), take_over=take_over)
        counts = IslandCodes(
            differing=sum(int(entry.count_nonzero()) for entry in differences),
            total=sum(entry.numel() for entry in differences),
            largest=max((int(entry.max()) for entry in differences), default=0),
        )
        return counts, {
            edge.name: to_edge(codes[edge.value], program.value(edge.value).grid, edge.codes)
            for edge in program.outputs
        }


def _with_outputs(model: onnx.ModelProto, names: list[str]) -> onnx.ModelProto:
    known = {output.name for output in model.graph.output}
    model.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.UINT8, None) for name in names if name not in known
    )
    return model
