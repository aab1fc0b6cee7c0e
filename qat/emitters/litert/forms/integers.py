"""Operators on whole numbers of 32 and 64 bits, one after another, where no kernel computes what a program defines."""

import numpy

from qat.emitters.litert.forms.tables import cast
from qat.emitters.litert.model import schema
from qat.emitters.litert.orders import Order
from qat.emitters.litert.writer import Writer
from qat.integer.operations import ComputingOperation


class Integers:
    """Adds operators on int32 and int64 tensors, each with a tensor of its own."""

    def __init__(self, writer: Writer, name: str) -> None:
        self.writer, self.name = writer, name
        self.count = 0

    def add(self, kind: str, operands: list[int], options, shape: tuple[int, ...], dtype=numpy.int32) -> int:
        """One operator; its result."""
        self.count += 1
        result = self.writer.model.tensor(f"{self.name}/{self.count}", shape, dtype)
        self.writer.model.operator(kind, operands, [result], options)
        return result

    def apply(self, kind: str, tensor: int, number: int | numpy.ndarray) -> int:
        """An operator with a constant second operand."""
        shape, dtype = self.writer.model.shape(tensor), self.dtype(tensor)
        constant = self.writer.numbers(numpy.array([number]), dtype)
        return self.add(kind, [tensor, constant], _OPTIONS[kind](), shape, dtype)

    def between(self, kind: str, first: int, second: int) -> int:
        """An operator with two tensors, in the shape of the first."""
        return self.add(kind, [first, second], _OPTIONS[kind](), self.writer.model.shape(first), self.dtype(first))

    def shifted(self, tensor: int, shift: int) -> int:
        """int64 numbers of at least 0, shifted to the right so far that int32 holds them.

        The runtime divides and shifts int32 numbers alone, and the upper half of an int64 number is one.
        """
        raised = self.apply("MUL", tensor, 1 << (32 - shift)) if shift < 32 else tensor
        shape = self.writer.model.shape(tensor)
        halves = self.add("BITCAST", [raised], schema.BitcastOptionsT(), (*shape, 2))
        begins, sizes = ([*[0] * len(shape), 1], [*[-1] * len(shape), 1])
        operands = [halves, self.writer.numbers(begins), self.writer.numbers(sizes)]
        upper = self.add("SLICE", operands, schema.SliceOptionsT(), (*shape, 1))
        whole = self.writer.model.tensor(f"{self.name}/upper", shape, numpy.int32)
        self.writer.reshape(upper, whole, shape)
        return self.apply("FLOOR_DIV", whole, 1 << (shift - 32)) if shift > 32 else whole

    def finish(self, operation: ComputingOperation, order: Order, codes: int, shift_of_codes: int) -> None:
        """The operation's result: int32 `codes` plus a number, inside its limits, as int8."""
        offset = self.writer.offset(operation.output)
        moved = self.apply("ADD", codes, shift_of_codes + self.writer.grid(operation.output).zero_point + offset)
        low, high = operation.clamp_min + offset, operation.clamp_max + offset
        limited = self.apply("MINIMUM", self.apply("MAXIMUM", moved, low), high)
        options = schema.CastOptionsT()
        options.inDataType, options.outDataType = schema.TensorType.INT32, schema.TensorType.INT8
        self.writer.moved("CAST", [limited], operation.output, order, options)

    def dtype(self, tensor: int) -> type:
        """int32 or int64."""
        is_long = self.writer.model.tensors[tensor].type == schema.TensorType.INT64
        return numpy.int64 if is_long else numpy.int32

    def cast(self, tensor: int, dtype) -> int:
        """A tensor in another type."""
        self.count += 1
        return cast(self.writer, tensor, dtype, f"{self.name}/{self.count}")


_OPTIONS = {
    "ADD": schema.AddOptionsT, "SUB": schema.SubOptionsT, "MUL": schema.MulOptionsT, "DIV": schema.DivOptionsT,
    "FLOOR_DIV": schema.FloorDivOptionsT, "MAXIMUM": schema.MaximumMinimumOptionsT,
    "MINIMUM": schema.MaximumMinimumOptionsT,
}  # fmt: skip
