"""What the QDQ forms of all operations share: tensors of codes, of units and of real numbers, and the way between.

Every value of a program is an int8 tensor here, made by a QuantizeLinear with zero point 0. Between them a file
computes in float32, of which TensorRT makes kernels that read and write int8. The numbers there are *units*: codes as
float32, which a DequantizeLinear of scale 1 gives. They are whole, and float32 adds whole numbers below 2^24 without
rounding: a sum of products is exact, its bias too, and one Mul by the program's own multiplier and one QuantizeLinear
of scale 1 round as the program does. With the scales of the real numbers in their place every product would be rounded,
and a few codes of a million would come out one off. Real numbers there are at the edges of the file, and around what
TensorRT has no integer arithmetic for (softmax, norms, division).
"""

from collections.abc import Callable

import numpy
from onnx import TensorProto

from qat.emitters.onnxruntime.graph import Graph, array_of
from qat.emitters.tensorrt.refusals import is_int8, pictures
from qat.integer.operations import Add, AveragePool, ComputingOperation, Conv, Linear, MatMul, Operation
from qat.integer.program import Input, IntegerProgram, Output
from qat.integer.values import INT8_MAX, INT8_MIN, AnyGrid, Constant, IndexRange


def codes_of(value: str) -> str:
    """Name of the tensor that holds the codes of a value or constant: int8, or int64 of indices."""
    return f"codes/{value}"


class Writer:
    """Writes operations into a graph; remembers which values have their units and real numbers already."""

    def __init__(self, program: IntegerProgram) -> None:
        self.program = program
        self.graph = Graph(program)
        self._pictures = pictures(program)
        self._kept = _kept_for_sums(program)
        self._made: dict[str, str] = {}

    def grid(self, name: str) -> AnyGrid:
        """The grid of a value or constant."""
        return self.program.value(name).grid

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a value or constant, without the batch."""
        return tuple(self.program.value(name).shape)

    def is_constant(self, name: str) -> bool:
        """Whether that is a constant."""
        return isinstance(self.program.value(name), Constant)

    def holds_indices(self, name: str) -> bool:
        """Whether that holds indices instead of codes of real numbers."""
        return isinstance(self.grid(name), IndexRange)

    def is_picture(self, name: str) -> bool:
        """Whether that holds the pixels of an input, 0..255, which no int8 tensor does; they are units alone."""
        return name in self._pictures

    def is_kept_for_sums(self, name: str) -> bool:
        """Whether that stays in memory until a sum reads it, while no product does, which would keep it in int8."""
        return name in self._kept

    # --- reading ------------------------------------------------------------------------------------------------------

    def units(self, name: str) -> str:
        """Codes of a value as float32."""
        target = f"units/{name}"
        return target if self.is_picture(name) else self._dequantized(name, 1.0, target)

    def reals(self, name: str) -> str:
        """A value in real numbers."""
        return self._dequantized(name, self.grid(name).scale, f"real/{name}")

    def scaled(self, name: str, factor: float, target: str) -> str:
        """Codes of a value times a positive float32, as `target`."""
        return self.graph.node("DequantizeLinear", [codes_of(name), *self.scale(factor)], target)

    def operand(self, name: str) -> str:
        """What an operation that moves or chooses reads: units, or indices as they are."""
        return codes_of(name) if self.holds_indices(name) else self.units(name)

    def _dequantized(self, name: str, scale: float, target: str) -> str:
        return self.once(target, lambda: self.scaled(name, scale, target))

    def scale(self, scale: float) -> tuple[str, str]:
        """Names of a scale and of the zero point."""
        return self.constant(f"scale/{scale!r}", scale, numpy.float32), self.constant("zero_point", 0, numpy.int8)

    def constant(self, name: str, array, dtype) -> str:
        """An initializer that all who ask for it share."""
        return self.once(name, lambda: self.graph.constant(name, array, dtype))

    def once(self, key: str, make: Callable[[], str]) -> str:
        """The tensor that `make` adds, for the first who asks."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    # --- writing ------------------------------------------------------------------------------------------------------

    def quantized(self, source: str, output: str, scale: float = 1.0) -> None:
        """The codes of `output`: `source` over `scale`, rounded, ties to even."""
        self.graph.node("QuantizeLinear", [source, *self.scale(scale)], codes_of(output))

    def moved(self, operation_output: str, kind: str, inputs: list[str], **attributes) -> None:
        """The value that a node makes by moving or choosing."""
        if self.holds_indices(operation_output):
            self.graph.node(kind, inputs, codes_of(operation_output), **attributes)
        elif self.is_picture(operation_output):
            self.graph.node(kind, inputs, f"units/{operation_output}", **attributes)
        else:
            self.quantized(self.graph.node(kind, inputs, f"moved/{operation_output}", **attributes), operation_output)

    def finish(self, source: str, operation: ComputingOperation, scale: float = 1.0) -> None:
        """The output of an operation: `source`, in steps of `scale`, within its clamp."""
        output = operation.output
        self.quantized(self.limited(source, output, operation.clamp_min, operation.clamp_max, scale), output, scale)

    def limited(self, source: str, output: str, low: int, high: int, scale: float = 1.0) -> str:
        """`source` within codes low..high of `scale`: a Relu where it is one, and nothing where int8 ends there.

        Both come before the QuantizeLinear, so that there is none between a DequantizeLinear and what reads it.
        """
        target = f"limited/{output}"
        if low == 0 and high >= INT8_MAX:
            return self.graph.node("Relu", [source], target)
        if low <= INT8_MIN and high >= INT8_MAX:
            return source
        ends = [None if low <= INT8_MIN else low * scale, None if high >= INT8_MAX else high * scale]
        names = ["" if end is None else self.constant(f"limit/{end!r}", end, numpy.float32) for end in ends]
        return self.graph.node("Clip", [source, *names] if names[1] else [source, names[0]], target)

    def rounded(self, source: str, output: str) -> str:
        """`source` rounded as sums and products are: ties are even in codes that count from 0.

        The QuantizeLinear behind it rounds int8 codes.
        """
        if not self.grid(output).unsigned_offset:
            return source
        raised = self.graph.node("Add", [source, self._offset(output)], f"raised/{output}")
        whole = self.graph.node("Round", [raised], f"whole/{output}")
        return self.graph.node("Sub", [whole, self._offset(output)], f"rounded/{output}")

    def _offset(self, name: str) -> str:
        """Name of what is to be added to a code so that it counts from 0."""
        offset = self.grid(name).unsigned_offset
        return self.constant(f"offset/{offset}", offset, numpy.float32)

    def write_constant(self, constant: Constant) -> None:
        """Codes that never change, with a batch of 1; those that int8 does not hold are written by what reads them."""
        if not is_int8(constant):
            return
        dtype = numpy.int64 if isinstance(constant.grid, IndexRange) else numpy.int8
        self.graph.constant(codes_of(constant.name), array_of(constant.codes)[None], dtype)

    def input(self, edge: Input) -> None:
        """Real numbers to codes; indices as they are; codes and pixels counted from 0 to int8."""
        self.graph.claim(edge.name)
        if self.holds_indices(edge.value):
            self.graph.node("Identity", [edge.name], codes_of(edge.value))
        elif edge.codes:
            self._counted_input(edge)
        else:
            grid, source, scale = self.grid(edge.value), edge.name, self.grid(edge.value).scale
            if edge.by_reciprocal:
                reciprocal = self.constant(f"reciprocal/{scale!r}", 1 / numpy.float32(scale), numpy.float32)
                source, scale = self.graph.node("Mul", [source, reciprocal], f"steps/{edge.value}"), 1.0
            self.quantized(self.limited(source, edge.value, grid.quant_min, grid.quant_max, scale), edge.value, scale)

    def _counted_input(self, edge: Input) -> None:
        if self.is_picture(edge.value):
            self.graph.node("Cast", [edge.name], f"units/{edge.value}", to=TensorProto.FLOAT)
            return
        counted = self.graph.node("Cast", [edge.name], f"counted/{edge.value}", to=TensorProto.FLOAT)
        signed = self.graph.node("Sub", [counted, self._offset(edge.value)], f"signed/{edge.value}")
        self.quantized(signed, edge.value)

    def output(self, edge: Output) -> None:
        """Codes to real numbers; indices as they are; codes that stay codes, counted from 0."""
        if self.holds_indices(edge.value):
            self.graph.node("Identity", [codes_of(edge.value)], edge.name)
        elif edge.codes:
            counted = self.graph.node("Add", [self.units(edge.value), self._offset(edge.value)], f"counted/{edge.name}")
            self.graph.node("Cast", [counted], edge.name, to=TensorProto.UINT8)
        else:
            self.scaled(edge.value, self.grid(edge.value).scale, edge.name)


def _kept_for_sums(program: IntegerProgram) -> frozenset[str]:
    """Values that several operations read, sums among them, and none that multiplies int8 codes."""
    readers: dict[str, list[Operation]] = {}
    for operation in program.operations:
        for name in operation.inputs:
            readers.setdefault(name, []).append(operation)
    return frozenset(
        name
        for name, reading in readers.items()
        if len(reading) > 1
        and any(isinstance(operation, Add) for operation in reading)
        and not any(isinstance(operation, Conv | Linear | MatMul | AveragePool) for operation in reading)
    )
