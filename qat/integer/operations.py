"""The typed operations of an integer program.

Conventions. Dimension numbers count the batch, which is dimension 0 and is never reduced, moved or cut. Tuples with one
entry per dimension (a slice's starts, a pad's amounts) start at dimension 1. Operations that compute have an output
grid of their own and clamp to clamp_min..clamp_max, codes inside it (a fused relu is clamp_min = zero_point).
Operations that only move or choose codes (MovingOperation) keep the grid of their input.
Every operation tells its output shape from its inputs' shapes, all without the batch.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from qat.errors import ProgramError
from qat.integer.fixed_point import Multiplier, SumMultipliers
from qat.integer.geometry import Shape, broadcast_shape, check_spatial, check_window, count_windows, reduced_shape
from qat.integer.values import Weight, check_dtype, check_name


@dataclass(frozen=True, eq=False, kw_only=True)
class Operation:
    """name: unique in the program. source: path of the module it came from. inputs, output: names of values."""

    name: str
    source: str
    inputs: tuple[str, ...]
    output: str

    #: How many inputs the operation takes; None: one or more.
    arity: ClassVar[int | None] = 1

    def __post_init__(self):
        check_name(self.name, "an operation")
        if len(self.inputs) != self.arity if self.arity is not None else not self.inputs:
            raise self.error(f"takes {self.arity or 'at least 1'} inputs, not {len(self.inputs)}")
        self.check()

    def check(self) -> None:
        """Refuse fields that contradict one another."""

    def output_shape(self, *shapes: Shape) -> Shape:
        """Shape of the output, without the batch."""
        return shapes[0]

    def error(self, problem: str) -> ProgramError:
        """An error that names this operation and where it came from."""
        origin = f" (from {self.source})" if self.source else ""
        return ProgramError(f"{type(self).__name__} {self.name!r}{origin} {problem}.")


@dataclass(frozen=True, eq=False, kw_only=True)
class ComputingOperation(Operation):
    """Has an output grid of its own, and clamps to it or to less of it."""

    clamp_min: int
    clamp_max: int


@dataclass(frozen=True, eq=False, kw_only=True)
class WeightedOperation(ComputingOperation):
    """Sums of products with constant weights, plus a bias, in int32; then requantized per output channel.

    weight: (O, ...). bias: int32 (O,), in units of input scale * weight scale.
    multiplier: (O,), `Multiplier.from_scales(input_scale, weight.scale, output_scale)`.
    """

    weight: Weight
    bias: Tensor
    multiplier: Multiplier

    def check(self):
        channels = self.weight.codes.shape[0]
        check_dtype(self.bias, torch.int32, f"the bias of {self.name!r}")
        if self.bias.shape != (channels,) or self.multiplier.mantissa.shape != (channels,):
            raise self.error(
                f"has {channels} output channels, a bias of shape {tuple(self.bias.shape)} and multipliers of shape "
                f"{tuple(self.multiplier.mantissa.shape)}; both must be ({channels},)"
            )


@dataclass(frozen=True, eq=False, kw_only=True)
class Conv(WeightedOperation):
    """Convolution over 1 or 2 spatial dimensions, zero padded. Weight (O, C / groups, *kernel); input (C, *spatial)."""

    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int

    def check(self):
        super().check()
        if self.weight.codes.dim() not in (3, 4):
            raise self.error(
                f"has a weight of shape {tuple(self.weight.codes.shape)}; 1 or 2 spatial dimensions have a kernel"
            )
        if self.groups < 1 or self.weight.codes.shape[0] % self.groups:
            raise self.error(
                f"has {self.weight.codes.shape[0]} output channels, not a multiple of its {self.groups} groups"
            )
        check_window(self.error, self.kernel_size, self.stride, self.padding, self.dilation)

    @property
    def kernel_size(self) -> Shape:
        """Size of the kernel per spatial dimension."""
        return tuple(self.weight.codes.shape[2:])

    def output_shape(self, *shapes):
        channels, *spatial = shapes[0] or (0,)
        if len(spatial) != len(self.kernel_size) or channels != self.weight.codes.shape[1] * self.groups:
            raise self.error(
                f"with a weight of shape {tuple(self.weight.codes.shape)} and {self.groups} groups "
                f"cannot take (C, *spatial) {shapes[0]}"
            )
        windows = count_windows(self.error, spatial, self.kernel_size, self.stride, self.padding, self.dilation)
        return (self.weight.codes.shape[0], *windows)


@dataclass(frozen=True, eq=False, kw_only=True)
class Linear(WeightedOperation):
    """Matrix product over the last dimension. Weight (O, K); input (..., K)."""

    def check(self):
        super().check()
        if self.weight.codes.dim() != 2:
            raise self.error(f"has a weight of shape {tuple(self.weight.codes.shape)}; expected (O, K)")

    def output_shape(self, *shapes):
        if not shapes[0] or shapes[0][-1] != self.weight.codes.shape[1]:
            raise self.error(
                f"with a weight of shape {tuple(self.weight.codes.shape)} cannot take an input of {shapes[0]}"
            )
        return (*shapes[0][:-1], self.weight.codes.shape[0])


@dataclass(frozen=True, eq=False, kw_only=True)
class Add(ComputingOperation):
    """Sum of two values, or of a value and a constant; broadcast. factors: `SumMultipliers.from_grids(...)`."""

    factors: SumMultipliers
    arity: ClassVar[int | None] = 2

    def output_shape(self, *shapes):
        return broadcast_shape(self.error, *shapes)


@dataclass(frozen=True, eq=False, kw_only=True)
class Mul(ComputingOperation):
    """Product of two values, or of a value and a constant; broadcast.

    multiplier: (1,), `Multiplier.from_scales(first_scale, second_scale, output_scale)`.
    """

    multiplier: Multiplier
    arity: ClassVar[int | None] = 2

    def check(self):
        _check_single(self, self.multiplier)

    def output_shape(self, *shapes):
        return broadcast_shape(self.error, *shapes)


@dataclass(frozen=True, eq=False, kw_only=True)
class Requantize(ComputingOperation):
    """The same value times `factor`, on another grid; also a clamp alone.

    factor: float32, not 0. multiplier: (1,), `Multiplier.from_scales(input_scale, abs(factor), output_scale)`. Rounded
    like a product. Where factor is 1 and scale and zero point stay, nothing is rescaled, only clamped.
    """

    factor: float = 1.0
    multiplier: Multiplier

    def check(self):
        _check_single(self, self.multiplier)
        if self.factor == 0 or not math.isfinite(self.factor):
            raise self.error(f"has factor {self.factor}; a factor is finite and not 0")


@dataclass(frozen=True, eq=False, kw_only=True)
class AveragePool(ComputingOperation):
    """Mean over windows of a (C, *spatial) input; padding counts as zeros in the mean.

    multiplier: (1,), `Multiplier.from_scales(input_scale, 1 / window size, output_scale)`.
    """

    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    multiplier: Multiplier

    def check(self):
        _check_single(self, self.multiplier)
        check_window(self.error, self.kernel_size, self.stride, self.padding, (1,) * len(self.kernel_size))

    @property
    def count(self) -> int:
        """How many elements a mean is over."""
        return math.prod(self.kernel_size)

    def output_shape(self, *shapes):
        channels, *spatial = check_spatial(self.error, shapes[0], self.kernel_size)
        ones = (1,) * len(self.kernel_size)
        return (channels, *count_windows(self.error, spatial, self.kernel_size, self.stride, self.padding, ones))


@dataclass(frozen=True, eq=False, kw_only=True)
class Mean(ComputingOperation):
    """Mean over `dims`. multiplier: (1,), `Multiplier.from_scales(input_scale, 1 / element count, output_scale)`."""

    dims: tuple[int, ...]
    keepdim: bool
    multiplier: Multiplier

    def check(self):
        _check_single(self, self.multiplier)

    def output_shape(self, *shapes):
        return reduced_shape(self.error, shapes[0], self.dims, self.keepdim)


@dataclass(frozen=True, eq=False, kw_only=True)
class MovingOperation(Operation):
    """Moves or chooses codes; the grid of the output is that of the inputs."""


@dataclass(frozen=True, eq=False, kw_only=True)
class MaxPool(MovingOperation):
    """Largest code of each window of a (C, *spatial) input; padding never wins. ceil_mode: windows may overhang."""

    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    ceil_mode: bool

    def check(self):
        check_window(self.error, self.kernel_size, self.stride, self.padding, self.dilation)
        for size, (before, after) in zip(self.kernel_size, self.padding, strict=True):
            if max(before, after) > size // 2:
                raise self.error(
                    f"pads {self.padding} around windows of {self.kernel_size}; at most half a window is possible"
                )

    def output_shape(self, *shapes):
        channels, *spatial = check_spatial(self.error, shapes[0], self.kernel_size)
        return (
            channels,
            *count_windows(
                self.error, spatial, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode
            ),
        )

    def full_padding(self, shape: Shape) -> tuple[tuple[int, int], ...]:
        """The padding with which every window lies inside, even one that overhangs. shape: input (C, *spatial)."""
        amounts = []
        geometry = zip(
            shape[1:],
            self.output_shape(shape)[1:],
            self.kernel_size,
            self.stride,
            self.dilation,
            self.padding,
            strict=True,
        )
        for size, count, kernel, step, spread, (before, after) in geometry:
            needed = (count - 1) * step + spread * (kernel - 1) + 1 - size - before
            amounts.append((before, max(after, needed)))
        return tuple(amounts)


@dataclass(frozen=True, eq=False, kw_only=True)
class Max(MovingOperation):
    """Largest code over `dims` (amax)."""

    dims: tuple[int, ...]
    keepdim: bool

    def output_shape(self, *shapes):
        return reduced_shape(self.error, shapes[0], self.dims, self.keepdim)


@dataclass(frozen=True, eq=False, kw_only=True)
class Concatenate(MovingOperation):
    """Inputs one after another along `dim`; all on the output's grid."""

    dim: int
    arity: ClassVar[int | None] = None

    def output_shape(self, *shapes):
        if not 1 <= self.dim <= len(shapes[0]):
            raise self.error(f"joins dimension {self.dim} of inputs of {shapes[0]}; the batch is dimension 0")
        axis = self.dim - 1
        rests = {(*shape[:axis], *shape[axis + 1 :]) for shape in shapes}
        if len(rests) > 1 or len({len(shape) for shape in shapes}) > 1:
            raise self.error(f"cannot join inputs of {', '.join(map(str, shapes))} along dimension {self.dim}")
        return (*shapes[0][:axis], sum(shape[axis] for shape in shapes), *shapes[0][axis + 1 :])


@dataclass(frozen=True, eq=False, kw_only=True)
class Reshape(MovingOperation):
    """The same codes in another `shape`, without the batch."""

    shape: tuple[int, ...]

    def output_shape(self, *shapes):
        if math.prod(shapes[0]) != math.prod(self.shape):
            raise self.error(f"cannot turn {shapes[0]} into {self.shape}")
        return self.shape


@dataclass(frozen=True, eq=False, kw_only=True)
class Transpose(MovingOperation):
    """Dimensions in another order. permutation: all of them, beginning with the batch's 0."""

    permutation: tuple[int, ...]

    def check(self):
        if (
            sorted(self.permutation) != list(range(len(self.permutation)))
            or not self.permutation
            or self.permutation[0]
        ):
            raise self.error(f"has permutation {self.permutation}; it must hold every dimension once and begin with 0")

    def output_shape(self, *shapes):
        if len(self.permutation) != len(shapes[0]) + 1:
            raise self.error(f"has permutation {self.permutation} for an input of {shapes[0]} and the batch")
        return tuple(shapes[0][dim - 1] for dim in self.permutation[1:])


@dataclass(frozen=True, eq=False, kw_only=True)
class Slice(MovingOperation):
    """Codes starts, starts + steps, ... below ends; one entry per dimension after the batch, none negative."""

    starts: tuple[int, ...]
    ends: tuple[int, ...]
    steps: tuple[int, ...]

    def output_shape(self, *shapes):
        if not len(self.starts) == len(self.ends) == len(self.steps) == len(shapes[0]):
            raise self.error(f"needs a start, an end and a step for each dimension of {shapes[0]}")
        for start, end, step, size in zip(self.starts, self.ends, self.steps, shapes[0], strict=True):
            if step < 1 or not 0 <= start < end <= size:
                raise self.error(f"cuts {start}:{end}:{step} out of {size}; it must lie inside and go upwards")
        return tuple(len(range(*cut)) for cut in zip(self.starts, self.ends, self.steps, strict=True))


@dataclass(frozen=True, eq=False, kw_only=True)
class Pad(MovingOperation):
    """Real zeros, that is codes zero_point, around the input. amounts: (before, after) per dimension but the batch."""

    amounts: tuple[tuple[int, int], ...]

    def output_shape(self, *shapes):
        if len(self.amounts) != len(shapes[0]) or any(min(pair) < 0 for pair in self.amounts):
            raise self.error(
                f"has amounts {self.amounts} for an input of {shapes[0]}; one pair, not negative, per dimension"
            )
        return tuple(size + before + after for size, (before, after) in zip(shapes[0], self.amounts, strict=True))


OPERATIONS: tuple[type[Operation], ...] = (
    Conv, Linear, Add, Mul, Requantize, AveragePool, Mean, MaxPool, Max, Concatenate, Reshape, Transpose, Slice, Pad,
)  # fmt: skip


def _check_single(operation: Operation, multiplier: Multiplier) -> None:
    if multiplier.mantissa.shape != (1,):
        raise operation.error(f"has {multiplier.mantissa.numel()} multipliers; it takes a single one")
