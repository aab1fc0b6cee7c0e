"""Integer arithmetic written as ONNX nodes, for operations that take many of them."""

from collections.abc import Mapping, Sequence

import numpy
from onnx import TensorProto, helper

from qat.emitters.onnxruntime.writer import Writer, tensor_of
from qat.integer.operations import ComputingOperation


class Arithmetic:
    """Adds the nodes of one operation. Results are names of tensors; numbers and arrays become constants.

    dtype: numpy integer type of constants that are given none; kernels compute in the type of their operands.
    """

    def __init__(self, writer: Writer, operation: ComputingOperation, dtype: type) -> None:
        self.graph, self.operation, self.dtype = writer.graph, operation, dtype
        self._writer = writer
        self._target = tensor_of(operation.output)
        self.rank = len(writer.shape(operation.output)) + 1
        self._constants: dict[tuple, str] = {}
        self._count = 0

    def node(self, kind: str, *operands: str, **attributes) -> str:
        """One node of tensors. Returns its result."""
        return self.graph.node(kind, operands, self._name(kind.lower()), **attributes)

    def constant(self, value, dtype: type | None = None) -> str:
        """A number, or an array, as a tensor; equal numbers are one."""
        dtype = dtype or self.dtype
        key = (dtype, value) if isinstance(value, int) else None
        if key is not None and key in self._constants:
            return self._constants[key]
        name = self.graph.constant(self._name("constant"), value, dtype)
        if key is not None:
            self._constants[key] = name
        return name

    def apply(self, kind: str, first, second, dtype: type | None = None) -> str:
        """A node of two operands, each a tensor's name, a number or an array."""
        operands = [entry if isinstance(entry, str) else self.constant(entry, dtype) for entry in (first, second)]
        return self.node(kind, *operands)

    def of_rows(self, kind: str, first, second, dtype: type = numpy.int64) -> str:
        """`apply` for what is one number a row.

        Its numbers have as many dimensions as a row's: beside a scalar the runtime (1.32) goes through [8, 128, 1]
        numbers in 22 microseconds, beside [[[n]]] in 6.
        """
        operands = [entry if isinstance(entry, str) else self._of_every_row(entry, dtype) for entry in (first, second)]
        return self.node(kind, *operands)

    def _of_every_row(self, number: int, dtype: type) -> str:
        key = (dtype, number, self.rank)
        if key not in self._constants:
            self._constants[key] = self.constant(numpy.full([1] * self.rank, number), dtype)
        return self._constants[key]

    def cast(self, tensor: str, dtype: type) -> str:
        """`tensor` as another type; bits beyond it are dropped."""
        return self.node("Cast", tensor, to=helper.np_dtype_to_tensor_dtype(numpy.dtype(dtype)))

    def reduce(self, kind: str, tensor: str, dims: Sequence[int]) -> str:
        """A reduction over `dims`, which stay with size 1."""
        return self.node(kind, tensor, self.constant(numpy.array(dims), numpy.int64), keepdims=1)

    def sum_last(self, tensor: str, size: int, dtype: type) -> str:
        """Sums of numbers of `dtype` over the last dimension, of `size`, which stays with size 1.

        As a product with ones it takes a third to a half of what a ReduceSum does.
        """
        return self.node("MatMul", tensor, self.graph.ones(self._name("ones"), size, dtype))

    def weigh_last(self, tensor: str, weights: Sequence[int], dtype: type) -> str:
        """`sum_last` of what is multiplied with `weights` before."""
        return self.node("MatMul", tensor, self.constant(numpy.array(weights)[:, None], dtype))

    def look_up(self, table, dtype: type, places: str, shape: tuple[int, ...]) -> str:
        """Entries of a flat `table` at int32 `places`, whose shape is `shape` behind the batch."""
        flat = self.node("Reshape", places, self.constant(numpy.array([-1]), numpy.int64))
        found = self.node("GatherElements", self.constant(table, dtype), flat, axis=0)
        return self.node("Reshape", found, self.constant((-1, *shape), numpy.int64))

    def gather(self, table: Sequence[int], places: str) -> str:
        """int64 entries of a table at a few int64 `places`."""
        return self.node("Gather", self.constant(numpy.array(table), numpy.int64), places)

    def step_up(self, numbers: str, steps: Mapping[int, int], at_end: bool) -> str:
        """For each of a few int64 numbers the entry of `steps` for the largest key that it is at least; int64.

        steps: ascending keys, of which every number reaches the first. at_end: whether the last dimension of `numbers`
        has size 1, so that comparisons can stand there.
        """
        last = None if at_end else self.constant(numpy.array([-1]), numpy.int64)
        compared = self.node("Unsqueeze", numbers, last) if last else numbers
        reached = self.node("GreaterOrEqual", compared, self.constant(list(steps), numpy.int64))
        rises = numpy.diff(list(steps.values()), prepend=0)
        found = self.weigh_last(self.cast(reached, numpy.int64), rises, numpy.int64)
        return self.node("Squeeze", found, last) if last else found

    def finish_counted(self, counted: str) -> None:
        """The codes of the operation: `counted`, which count from the lowest code of the tensor's type, clamped."""
        writer, operation = self._writer, self.operation
        offset = writer.grid(operation.output).unsigned_offset
        limits = [self.constant(limit + offset) for limit in (operation.clamp_min, operation.clamp_max)]
        self.graph.node(
            "Cast", [self.node("Clip", counted, *limits)], self._target, to=writer.tensor_type(operation.output)
        )

    def finish(self, steps: str, reach: tuple[int, int] | None = None) -> None:
        """The codes of the operation: `steps` plus the zero point, clamped, as uint8, or int32 of wide ones.

        steps: codes less the zero point, of `dtype`. reach: the least and the largest of them, where that is known, so
        that a clamp that does nothing is left out.
        """
        operation, target = self.operation, self._target
        grid = self._writer.grid(operation.output)
        offset = grid.zero_point + grid.unsigned_offset
        low, high = operation.clamp_min - grid.zero_point, operation.clamp_max - grid.zero_point
        if reach is None or reach[0] < low or reach[1] > high:
            steps = self.node("Clip", steps, self.constant(low), self.constant(high))
        if self._writer.is_wide(operation.output):
            self.graph.node("Cast", [self.apply("Add", steps, offset)], target, to=TensorProto.INT32)
            return
        if not offset:
            self.graph.node("Cast", [steps], target, to=TensorProto.UINT8)
            return
        # Added in uint8, which wraps around: the sum is a code.
        narrow = self.cast(steps, numpy.uint8)
        self.graph.node("Add", [narrow, self.constant(offset, numpy.uint8)], target)

    def _name(self, kind: str) -> str:
        self._count += 1
        return f"{self._target}/{self._count}_{kind}"
