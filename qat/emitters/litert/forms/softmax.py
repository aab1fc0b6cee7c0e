"""Softmax of integer operators: a table of exponentials, their sums, and one division for each code.

LiteRT's own softmax of int8 numbers computes in floating point on the way. This is the program's definition, operator
for operator (`qat.integer.kernels.softmax`).
"""

import numpy

from qat.emitters.litert.forms.tables import cast
from qat.emitters.litert.model import schema
from qat.emitters.litert.writer import Writer, array_of
from qat.integer.operations import Softmax


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


def softmax(writer: Writer, operation: Softmax) -> None:
    """The program's integer softmax; SOFTMAX of real numbers."""
    source = operation.inputs[0]
    order = writer.held(source).order
    if writer.real:
        order = (*(dim for dim in order if dim != operation.dim), operation.dim)  # over the last dimension
        options = schema.SoftmaxOptionsT()
        options.beta = 1.0
        writer.moved("SOFTMAX", [writer.read(source, order)], operation.output, order, options)
        return
    tensor, axis = writer.read(source, order), order.index(operation.dim)
    nodes, factors = Integers(writer, operation.name), operation.factors
    shape = writer.model.shape(tensor)
    row = tuple(1 if place == axis else size for place, size in enumerate(shape))
    reducer, axes = schema.ReducerOptionsT(), writer.numbers([axis])
    reducer.keepDims = True
    largest = writer.like(source, f"{operation.name}/largest", row)
    writer.model.operator("REDUCE_MAX", [tensor, axes], [largest], reducer)
    wide = [nodes.cast(each, numpy.int32) for each in (largest, tensor)]
    distances = nodes.add("SUB", wide, schema.SubOptionsT(), shape)
    table = writer.numbers(array_of(factors.exponentials))
    parts = nodes.add("GATHER", [table, distances], schema.GatherOptionsT(), shape)
    sums = nodes.add("SUM", [parts, axes], reducer, row)
    if factors.sum_shift:
        sums = nodes.apply("FLOOR_DIV", sums, 1 << factors.sum_shift)
    scaled = nodes.apply("MUL", nodes.cast(sums, numpy.int64), factors.divisor_factor)
    highest = ((factors.divisor_limit + 1) << factors.divisor_shift) - 1
    scaled = nodes.apply("MINIMUM", nodes.apply("ADD", scaled, factors.half), min(highest, 2**62))
    divisors = nodes.apply("MAXIMUM", nodes.shifted(scaled, factors.divisor_shift), 1)
    numerators = nodes.apply("MUL", parts, 1 << factors.numerator_shift)
    raised = nodes.between("ADD", numerators, nodes.apply("FLOOR_DIV", divisors, 2))
    steps = nodes.between("DIV", raised, divisors)
    offset = writer.offset(operation.output)
    codes = nodes.apply("ADD", steps, writer.grid(operation.output).zero_point + offset)
    low, high = operation.clamp_min + offset, operation.clamp_max + offset
    limited = nodes.apply("MINIMUM", nodes.apply("MAXIMUM", codes, low), high)
    options = schema.CastOptionsT()
    options.inDataType, options.outDataType = schema.TensorType.INT32, schema.TensorType.INT8
    writer.moved("CAST", [limited], operation.output, order, options)
