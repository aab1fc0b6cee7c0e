"""What the forms of all operations share: where a value's tensors are, constants, operators with limits behind them.

The same forms write the integer file and the float32 network behind it; there, tensors are real and no code is moved.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy
import torch
from torch import Tensor

from qat.emitters.litert import orders
from qat.emitters.litert.limits import LOW, WIDE_LOW, Activation, Stage, is_wide, offset_of, stages, wide_limits
from qat.emitters.litert.model import Model, Scaling, schema
from qat.emitters.litert.orders import Order
from qat.integer.operations import ComputingOperation
from qat.integer.program import IntegerProgram
from qat.integer.reals import dequantize
from qat.integer.values import AnyGrid, Constant, Grid, IndexRange

#: Adds the operator that writes a tensor: (tensor, fused activation).
Write = Callable[[int, int], None]


@dataclass(frozen=True)
class Placed:
    """A tensor that holds a value in some order of its dimensions.

    columns: where the last dimension is itself in another order, the place in the value of each of its entries.
    """

    tensor: int
    order: Order
    columns: tuple[int, ...] = ()


class Writer:
    """Writes operations into a model.

    real: as the float32 network behind the program. unpacked: as `ExportOptions.unpacked_weights`.
    """

    def __init__(self, program: IntegerProgram, real: bool = False, unpacked: bool = False) -> None:
        self.program = program
        self.real = real
        self.unpacked = unpacked
        self.model = Model()
        self._placed: dict[str, list[Placed]] = {}
        self.readers: dict[str, list] = {}
        for operation in program.operations:
            for name in operation.inputs:
                self.readers.setdefault(name, []).append(operation)
        self.edges = {edge.value for edge in program.outputs}

    # --- values -----------------------------------------------------------------------------------------------------

    def grid(self, name: str) -> AnyGrid:
        """The grid of a value or constant."""
        return self.program.value(name).grid

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a value or constant, without the batch."""
        return tuple(self.program.value(name).shape)

    def scale(self, name: str) -> float:
        """The scale of a value."""
        return self.grid(name).scale

    def is_constant(self, name: str) -> bool:
        """Whether that is a constant."""
        return isinstance(self.program.value(name), Constant)

    def holds_indices(self, name: str) -> bool:
        """Whether that holds indices instead of codes of real numbers."""
        return isinstance(self.grid(name), IndexRange)

    def is_wide(self, name: str) -> bool:
        """Whether a value or constant takes an int16 tensor: a constant as the codes that it is computed with."""
        if is_wide(self.grid(name)) or not self.is_constant(name) or self.holds_indices(name):
            return is_wide(self.grid(name))
        beside = {each for reader in self.readers.get(name, ()) for each in (*reader.inputs, reader.output)}
        return any(is_wide(self.grid(each)) for each in beside)

    def offset(self, name: str) -> int:
        """What to add to a code to have the number in its tensor."""
        if self.holds_indices(name):
            return 0
        return -self.grid(name).zero_point if self.is_wide(name) else offset_of(self.grid(name))

    def dtype(self, name: str) -> type:
        """The type of a value's tensor."""
        if self.holds_indices(name):
            return numpy.int32
        if self.real:
            return numpy.float32
        return numpy.int16 if self.is_wide(name) else numpy.int8

    def scaling(self, name: str, zero_point: int | None = None) -> Scaling | None:
        """Scale and zero point of a value's tensor; zero_point: of a stage on the way to it."""
        grid = self.grid(name)
        if self.real or isinstance(grid, IndexRange):
            return None
        return Scaling((grid.scale,), grid.zero_point + self.offset(name) if zero_point is None else zero_point)

    # --- tensors ----------------------------------------------------------------------------------------------------

    def tensor(self, name: str, order: Order, label: str | None = None, zero_point: int | None = None) -> int:
        """A new tensor of the value `name`, called so or `label`."""
        shape = orders.permuted(self.shape(name), order)
        return self.model.tensor(label or name, shape, self.dtype(name), self.scaling(name, zero_point))

    def like(self, name: str, label: str, shape: Sequence[int]) -> int:
        """A new tensor of any shape, batch in front, with the scale and zero point of the value `name`."""
        return self.model.tensor(label, shape, self.dtype(name), self.scaling(name))

    def place(self, name: str, tensor: int, order: Order, columns: tuple[int, ...] = ()) -> None:
        """Note that `tensor` holds the value `name`."""
        self._placed.setdefault(name, []).append(Placed(tensor, order, columns))

    def made(self, name: str, order: Order) -> int:
        """A new tensor that holds the value `name`, noted."""
        tensor = self.tensor(name, order)
        self.place(name, tensor, order)
        return tensor

    def held(self, name: str) -> Placed:
        """The first tensor that holds a value, in whatever order."""
        if name not in self._placed:
            self._place_constant(name, orders.usual(len(self.shape(name))))
        return self._placed[name][0]

    def read(self, name: str, order: Order | None = None) -> int:
        """The tensor that holds a value in `order`, by default its own; made by a Transpose where there is none."""
        order = orders.usual(len(self.shape(name))) if order is None else order
        for placed in self._placed.get(name, ()):
            if placed.order == order and not placed.columns:
                return placed.tensor
        if self.is_constant(name):
            return self._place_constant(name, order)
        source, shape = self.held(name), self.shape(name)
        target = self.tensor(name, order, f"{name}/{len(self._placed[name])}")
        if orders.moves_data(shape, source.order, order):
            permutation = self.numbers(orders.between(source.order, order))
            self.model.operator("TRANSPOSE", [source.tensor, permutation], [target], schema.TransposeOptionsT())
        else:
            self.reshape(source.tensor, target, orders.permuted(shape, order))
        self.place(name, target, order)
        return target

    def common_order(self, names: Sequence[str]) -> Order:
        """The order in which operands of one rank are read: that of the largest value which has one."""
        values = [name for name in names if not self.is_constant(name)]
        return self.held(max(values, key=lambda name: numpy.prod(self.shape(name), initial=1))).order

    def _place_constant(self, name: str, order: Order) -> int:
        constant = self.program.value(name)
        numbers = dequantize(constant.codes, constant.grid) if self.real else constant.codes
        numbers = array_of(numbers)[None].transpose(order)
        if not self.real:
            numbers = numbers.astype(numpy.int64) + self.offset(name)
        tensor = self.model.constant(name, numbers.astype(self.dtype(name)), self.scaling(name))
        self.place(name, tensor, order)
        return tensor

    def numbers(self, numbers, dtype=numpy.int32) -> int:
        """A constant that is no value: axes, sizes, indices."""
        return self.model.constant("n", numpy.array(numbers, dtype))

    def lowest(self, name: str) -> int:
        """A constant of the lowest number that a tensor of this value can hold."""
        number = numpy.finfo(numpy.float32).min if self.real else WIDE_LOW if self.is_wide(name) else LOW
        return self.model.constant("lowest", numpy.array([number], self.dtype(name)), self.scaling(name))

    # --- operators --------------------------------------------------------------------------------------------------

    def reshape(self, source: int, target: int, shape: Sequence[int]) -> None:
        """RESHAPE. shape: with the batch in front, whose size is left open."""
        self.model.operator("RESHAPE", [source, self.numbers([-1, *shape[1:]])], [target], schema.ReshapeOptionsT())

    def quantize(self, source: int, target: int) -> None:
        """QUANTIZE: from one scale and zero point, or from real numbers, to another."""
        self.model.operator("QUANTIZE", [source], [target], schema.QuantizeOptionsT())

    def limited(self, operation: ComputingOperation, order: Order, write: Write, fuses: bool = True) -> None:
        """Let `write` make the operation's result, and keep it inside its limits.

        fuses: whether the operator that it adds may have an activation.
        """
        low, high = operation.clamp_min, operation.clamp_max
        self.clamped(operation.output, order, low, high, write, fuses)

    def clamped(self, name: str, order: Order, low: int, high: int, write: Write, fuses: bool = True) -> None:
        """Let `write` make the value `name`, and keep its codes inside low..high."""
        grid = self.grid(name)
        if self.real:
            self._clamp_real(name, order, grid, low, high, write, fuses)
            return
        if is_wide(grid):
            activation, *limits = wide_limits(grid, low, high, fuses)
            self._clamp_apart(name, order, *limits, write, activation)
            return
        steps = stages(grid, low, high, fuses)
        if steps is None:
            self._clamp_apart(name, order, low, high, write, Activation.NONE)
            return
        tensors = [self._stage(name, order, step, last=step is steps[-1]) for step in steps]
        write(tensors[0], steps[0].activation)
        for source, target in zip(tensors, tensors[1:], strict=False):
            self.quantize(source, target)
        self.place(name, tensors[-1], order)

    def _stage(self, name: str, order: Order, step: Stage, last: bool) -> int:
        return self.tensor(name, order, None if last else f"{name}/{step.zero_point}", step.zero_point)

    def _clamp_apart(
        self, name: str, order: Order, low: int | None, high: int | None, write: Write, activation: int
    ) -> None:
        """Limits by operators of their own: those that leave out zero, and of 16-bit codes all but an activation's."""
        limits = [(kind, limit) for kind, limit in (("MAXIMUM", low), ("MINIMUM", high)) if limit is not None]
        source = self.tensor(name, order, f"{name}/wide" if limits else None)
        write(source, activation)
        for place, (kind, limit) in enumerate(limits, start=1):
            target = self.tensor(name, order, name if place == len(limits) else f"{name}/low")
            bound = numpy.full((1,) * len(order), limit + self.offset(name), self.dtype(name))
            constant = self.model.constant("n", bound, self.scaling(name))
            self.model.operator(kind, [source, constant], [target], schema.MaximumMinimumOptionsT())
            source = target
        self.place(name, source, order)

    def _clamp_real(self, name: str, order: Order, grid: Grid, low: int, high: int, write: Write, fuses: bool) -> None:
        """The relu or clamp that an integer operation has taken in."""
        bounds = [
            grid.scale * (code - grid.zero_point) if code != end else None
            for code, end in ((low, grid.quant_min), (high, grid.quant_max))
        ]
        if low == grid.zero_point:
            bounds[0] = 0.0
        six = bounds[1] is not None and abs(bounds[1] - 6) <= grid.scale
        kind = Activation.NONE if bounds == [None, None] else Activation.RELU6 if six else Activation.RELU
        if kind == Activation.NONE or fuses and bounds[0] == 0.0:
            write(self.made(name, order), kind)
            return
        source = self.tensor(name, order, f"{name}/wide")
        write(source, Activation.NONE)
        self.model.operator("RELU6" if six else "RELU", [source], [self.made(name, order)])

    def moved(self, kind: str, sources: Sequence[int], name: str, order: Order, options=None) -> None:
        """An operator that makes the value `name` by moving or choosing codes."""
        self.model.operator(kind, sources, [self.made(name, order)], options)


def array_of(tensor: Tensor) -> numpy.ndarray:
    """A tensor as an array."""
    return tensor.detach().cpu().contiguous().numpy()


def codes_array(codes: Tensor) -> numpy.ndarray:
    """Codes as int64."""
    return array_of(codes.to(torch.int64))
