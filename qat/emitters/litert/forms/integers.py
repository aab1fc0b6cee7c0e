"""Operators on whole numbers of 32 and 64 bits, one after another, where no kernel computes what a program defines.

What kernels take was found by trying all (`ai-edge-litert` 2.3): int64 numbers are added, multiplied, compared, summed,
gathered and divided for their remainder, but neither divided nor shifted. Of int32 numbers a minimum or maximum with a
constant takes eight times as long as a sum, and an activation that a sum has fused nothing.
"""

import math
from collections.abc import Sequence

import numpy

from qat.emitters.litert.forms.tables import cast
from qat.emitters.litert.limits import Activation
from qat.emitters.litert.model import schema
from qat.emitters.litert.orders import Order
from qat.emitters.litert.writer import Writer
from qat.integer.operations import ComputingOperation

Number = int | numpy.ndarray


class Integers:
    """Adds operators on int32 and int64 tensors, each with a tensor of its own, all named as the operation is.

    There are hundreds of them in a file, which has one name for all of an operation once.
    """

    def __init__(self, writer: Writer, name: str) -> None:
        self.writer, self.name = writer, name
        self._found: dict[tuple, int] = {}

    def add(self, kind: str, operands: list[int], options, shape: tuple[int, ...], dtype=numpy.int32) -> int:
        """One operator; its result."""
        result = self.writer.model.tensor(self.name, shape, dtype)
        self.writer.model.operator(kind, operands, [result], options)
        return result

    def apply(self, kind: str, tensor: int, number: Number, activation: int = Activation.NONE) -> int:
        """An operator with a constant second operand, a number or what broadcasts to the tensor."""
        return self.between(kind, tensor, self.constant(number, tensor), activation)

    def between(self, kind: str, first: int, second: int, activation: int = Activation.NONE) -> int:
        """An operator with two tensors, which broadcast; the same once."""
        key = kind, first, second, activation
        if key in self._found:
            return self._found[key]
        shape = numpy.broadcast_shapes(*(self.writer.model.shape(tensor) for tensor in (first, second)))
        options = _OPTIONS[kind]()
        if activation != Activation.NONE:
            options.fusedActivationFunction = activation
        self._found[key] = self.add(kind, [first, second], options, tuple(map(int, shape)), self.dtype(first))
        return self._found[key]

    def constant(self, number: Number, like: int) -> int:
        """A constant in the type of the tensor `like`."""
        return self.writer.numbers(numpy.atleast_1d(number), self.dtype(like))

    def shifted(self, tensor: int, shift: int) -> int:
        """int64 numbers of at least 0, shifted to the right so far that int32 holds them.

        The runtime divides and shifts int32 numbers alone, and the upper half of an int64 number is one.
        """
        raised = self.apply("MUL", tensor, 1 << (32 - shift)) if shift < 32 else tensor
        shape = self.writer.model.shape(tensor)
        halves = self.add("BITCAST", [raised], schema.BitcastOptionsT(), (*shape, 2))
        # a transposition and a cut of one run are four times as fast as a cut of every second number
        pairs, axes = self.reshaped(halves, (math.prod(shape), 2)), self.writer.numbers([1, 0])
        apart = self.add("TRANSPOSE", [pairs, axes], schema.TransposeOptionsT(), (2, math.prod(shape)))
        operands = [apart, *map(self.writer.numbers, ([1, 0], [1, -1]))]
        upper = self.add("SLICE", operands, schema.SliceOptionsT(), (1, math.prod(shape)))
        whole = self.reshaped(upper, shape)
        return self.right(whole, shift - 32) if shift > 32 else whole

    def right(self, tensor: int, shift: int) -> int:
        """int32 numbers, shifted to the right."""
        shape = self.writer.model.shape(tensor)
        return self.add("RIGHT_SHIFT", [tensor, self.writer.numbers([shift])], None, shape)

    def absolute(self, tensor: int) -> int:
        """The sizes of int32 numbers."""
        return self.add("ABS", [tensor], schema.AbsOptionsT(), self.writer.model.shape(tensor))

    def reduced(self, kind: str, tensor: int, axes: Sequence[int]) -> int:
        """SUM or a REDUCE_MAX over `axes`, which stay with size 1."""
        sizes = self.writer.model.shape(tensor)
        shape = tuple(1 if axis in axes else size for axis, size in enumerate(sizes))
        options = schema.ReducerOptionsT()
        options.keepDims = True
        return self.add(kind, [tensor, self.writer.numbers(list(axes))], options, shape, self.dtype(tensor))

    def gathered(self, table: numpy.ndarray, places: int) -> int:
        """Entries of a table, by int32 places."""
        operands = [self.writer.numbers(table, table.dtype), places]
        shape = self.writer.model.shape(places)
        return self.add("GATHER", operands, schema.GatherOptionsT(), shape, table.dtype)

    def reached(self, tensor: int, steps: Sequence[int]) -> int:
        """How many of the ascending `steps` a number reaches, int32; the tensor has a last dimension of 1."""
        shape = (*self.writer.model.shape(tensor)[:-1], len(steps))
        operands = [tensor, self.constant(numpy.array(steps), tensor)]
        found = self.add("GREATER_EQUAL", operands, schema.GreaterEqualOptionsT(), shape, numpy.bool_)
        return self.reduced("SUM", self.cast(found, numpy.int32), [len(shape) - 1])

    def reshaped(self, tensor: int, shape: tuple[int, ...]) -> int:
        """The numbers of a tensor in another shape."""
        target = self.writer.model.tensor(self.name, shape, self.dtype(tensor))
        self.writer.reshape(tensor, target, shape)
        return target

    def finish(self, operation: ComputingOperation, order: Order, codes: int, shift_of_codes: Number) -> None:
        """The operation's result: `codes` plus a number, inside its limits, in the tensor that it has."""
        name, low, high = operation.output, operation.clamp_min, operation.clamp_max
        offset = self.writer.offset(name)
        moved = shift_of_codes + self.writer.grid(name).zero_point
        if self.dtype(codes) == numpy.int64:
            lowest = self.apply("MAXIMUM", self.apply("ADD", codes, moved + offset), low + offset)
            limited = self.apply("MINIMUM", lowest, high + offset)
        else:
            above = self.apply("ADD", codes, moved - low, Activation.RELU)
            below = self.between("SUB", self.constant(high - low, above), above, Activation.RELU)
            limited = self.between("SUB", self.constant(high + offset, below), below)
        options = schema.CastOptionsT()
        target = self.writer.made(name, order)
        options.inDataType, options.outDataType = (self.writer.model.tensors[each].type for each in (limited, target))
        self.writer.model.operator("CAST", [limited], [target], options)

    def dtype(self, tensor: int) -> type:
        """int32, int64 or that of truth values."""
        return _TYPES[self.writer.model.tensors[tensor].type]

    def cast(self, tensor: int, dtype) -> int:
        """A tensor in another type."""
        return cast(self.writer, tensor, dtype, self.name)


_OPTIONS = {
    "ADD": schema.AddOptionsT, "SUB": schema.SubOptionsT, "MUL": schema.MulOptionsT, "DIV": schema.DivOptionsT,
    "FLOOR_DIV": schema.FloorDivOptionsT, "FLOOR_MOD": schema.FloorModOptionsT,
    "MAXIMUM": schema.MaximumMinimumOptionsT, "MINIMUM": schema.MaximumMinimumOptionsT,
}  # fmt: skip
_TYPES = {
    schema.TensorType.INT32: numpy.int32, schema.TensorType.INT64: numpy.int64, schema.TensorType.BOOL: numpy.bool_
}  # fmt: skip
