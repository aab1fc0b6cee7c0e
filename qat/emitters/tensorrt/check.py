"""The codes of a file beside those of the program, operation by operation.

Each operation of the program runs on the codes that the file itself made of its inputs, so that what one of them rounds
otherwise is found there, and does not come back as differences of everything behind it.
"""

import math
from collections.abc import Iterable, Mapping
from os import PathLike

import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor

from qat.emitters.onnxruntime.islands import IslandCodes
from qat.emitters.onnxruntime.session import run_session
from qat.emitters.tensorrt.forms.reals import KINDS
from qat.emitters.tensorrt.refusals import pictures
from qat.emitters.tensorrt.session import open_session
from qat.emitters.tensorrt.writer import codes_of
from qat.errors import ExportError
from qat.integer.fixed_point import MANTISSA_BITS
from qat.integer.interpreter import named_inputs, quantize_inputs, run, to_edge
from qat.integer.kernels import compute
from qat.integer.operations import AveragePool, Conv, Linear, MatMul, Mean, Operation, Sum
from qat.integer.operations.base import largest_reach
from qat.integer.program import IntegerProgram
from qat.integer.values import IndexRange

#: Share of an operation's codes that may be one off where float32 rounds: of random codes it was 3 in 10,000.
MOST_DIFFERING = 0.01
#: So many may be one off however few codes there are.
FEW_DIFFERING = 2


def computes_reals(operation: Operation) -> bool:
    """Whether a file computes the operation in real numbers."""
    return isinstance(operation, KINDS)


def is_exact(operation: Operation, program: IntegerProgram) -> bool:
    """Whether float32 computes the operation without rounding anything but its result, in whatever order it adds.

    So it is for all but functions of real numbers, and sums of products that can leave the 2^24 whole numbers which
    float32 has: there, codes may differ in theory.
    """
    return not computes_reals(operation) and largest_sum(operation, program) <= 2**MANTISSA_BITS


def largest_sum(operation: Operation, program: IntegerProgram) -> int:
    """Largest magnitude of a sum of some of what an operation adds up, for any input; 0 where it adds nothing up."""
    grids = [program.value(name).grid for name in operation.inputs]
    if isinstance(operation, Conv | Linear):
        low, high = grids[0].reach
        kernel = operation.weight.kernel.flatten(1)
        positive = kernel.clamp(min=0).sum(1, dtype=torch.int64)
        negative = kernel.clamp(max=0).sum(1, dtype=torch.int64)
        upward, downward = positive * high + negative * low, positive * low + negative * high
        bias = operation.bias.to(torch.int64).abs()
        return int((torch.maximum(upward.abs(), downward.abs()) + bias).max())
    if isinstance(operation, MatMul):
        return program.value(operation.inputs[0]).shape[-1] * math.prod(map(largest_reach, grids))
    if isinstance(operation, AveragePool | Mean | Sum):
        return operation.reach([program.value(operation.inputs[0])], program.value(operation.output))
    return 0


class LayerComparison:
    """The file at `path` with all its codes, beside every operation of `program` on its own."""

    def __init__(self, program: IntegerProgram, path: str | PathLike) -> None:
        self._program = program.at()
        pixels = pictures(self._program)
        self._shown = [value.name for value in self._program.values if value.name not in pixels]
        self._session = shown_session(self._program, path, self._shown)

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, IslandCodes]:
        """How the codes of each operation, and of each "input NAME", differ from the program's on the same codes.

        inputs: by name.
        """
        program, found = self._program, {}
        results = run_session(self._session, inputs)
        codes = {name: results[codes_of(name)].to(program.value(name).grid.dtype) for name in self._shown}
        codes |= {constant.name: constant.codes[None] for constant in program.constants}
        made = quantize_inputs(program, named_inputs(program, inputs))
        for edge in program.inputs:
            given = codes.setdefault(edge.value, made[edge.value])
            found[f"input {edge.name}"] = differences(given, made[edge.value])
        for operation in program.operations:
            operands = [codes[name] for name in operation.inputs]
            grids = [program.value(name).grid for name in operation.inputs]
            expected = compute(operation, operands, grids, program.value(operation.output).grid)
            found[operation.name] = differences(codes.setdefault(operation.output, expected), expected)
        return found


def differences(codes: Tensor, expected: Tensor) -> IslandCodes:
    """How many codes are not what was expected, of how many, and by how much."""
    distance = (codes.to(torch.int64) - expected.to(torch.int64)).abs()
    return IslandCodes(int(distance.count_nonzero()), distance.numel(), int(distance.max()))


def refuse_differences(program: IntegerProgram, found: Mapping[str, IslandCodes]) -> None:
    """Raise `ExportError` where codes differ by more than float32 rounds. found: by operation and input."""
    operations = {operation.name: operation for operation in program.operations}
    for name, codes in found.items():
        operation = operations.get(name)
        exact = operation is None or is_exact(operation, program)
        most = 0 if exact else max(codes.total * MOST_DIFFERING, FEW_DIFFERING)
        if codes.differing > most or codes.largest > 1:
            what = name if operation is None else f"{type(operation).__name__} {name!r}"
            raise ExportError(
                f"of the QDQ file, {what} gives other codes than the program for {codes}, where at most {most:.0f} by "
                f"one can be rounding; ONNX Runtime's float32 kernels for this processor compute otherwise."
            )


class IslandComparison:
    """The file at `path` beside the program, which goes on with the codes of what the file computes in real numbers."""

    def __init__(self, program: IntegerProgram, path: str | PathLike) -> None:
        self._program = program.at()
        self._outputs = [each.output for each in self._program.operations if computes_reals(each)]
        self._session = shown_session(self._program, path, self._outputs)

    def __call__(self, inputs: Mapping[str, Tensor]) -> tuple[IslandCodes, dict[str, Tensor]]:
        """How those codes differ from the program's own, and what the program makes of them.

        inputs: by name. Returns outputs by name, as `program(inputs)` has them.
        """
        program, found = self._program, [IslandCodes()]
        results = run_session(self._session, inputs)

        def take_over(operation: Operation, codes: Tensor) -> Tensor:
            if not computes_reals(operation):
                return codes
            given = results[codes_of(operation.output)].to(codes.dtype)
            found.append(differences(given, codes))
            return given

        codes = run(program, quantize_inputs(program, named_inputs(program, inputs)), take_over=take_over)
        outputs = {
            edge.name: to_edge(codes[edge.value], program.value(edge.value).grid, edge.codes)
            for edge in program.outputs
        }
        return sum(found[1:], found[0]), outputs


def shown_session(program: IntegerProgram, path: str | PathLike, values: Iterable[str]):
    """A session of the file that gives out the codes of these values as well."""
    model = onnx.load(path, load_external_data=False)
    known = {output.name for output in model.graph.output}
    for name in values:
        if codes_of(name) not in known:
            indices = isinstance(program.value(name).grid, IndexRange)
            kind = TensorProto.INT64 if indices else TensorProto.INT8
            model.graph.output.append(helper.make_tensor_value_info(codes_of(name), kind, None))
    return open_session(path, model=model.SerializeToString())
