"""Writing an integer program operation by operation: names, shapes and multipliers follow from what is given."""

import math

import torch
from torch import Tensor

from qat.integer.fixed_point import Multiplier, SumMultipliers
from qat.integer.operations import (
    Add,
    AveragePool,
    Concatenate,
    Conv,
    Linear,
    Max,
    MaxPool,
    Mean,
    MovingOperation,
    Mul,
    Operation,
    Pad,
    Requantize,
    Reshape,
    Slice,
    Transpose,
)
from qat.integer.program import Input, IntegerProgram, Output
from qat.integer.values import Constant, Grid, Value, Weight, float32

Clamp = tuple[int, int] | None
Pairs = tuple[tuple[int, int], ...]


class ProgramBuilder:
    """Collects a program. Each method adds one operation called `name` and returns the name of its value, the same.

    sources are names of values. grid: of the result. clamp: codes (min, max) of a fused activation; None: all of the
    grid. module: path of the module an operation came from, for reports; by default its name.
    """

    def __init__(self) -> None:
        self._inputs: list[Input] = []
        self._outputs: list[Output] = []
        self._operations: list[Operation] = []
        self._known: dict[str, Value | Constant] = {}

    def input(self, name: str, shape: tuple[int, ...], grid: Grid) -> str:
        """A real input of `shape`, without the batch."""
        self._inputs.append(Input(name, name))
        self._known[name] = Value(name, tuple(shape), grid)
        return name

    def constant(self, name: str, codes: Tensor, grid: Grid) -> str:
        """A constant operand for `add` or `mul`. codes: any integer dtype, without the batch."""
        self._known[name] = Constant(name, grid, codes.to(grid.dtype))
        return name

    def output(self, name: str, source: str) -> None:
        """A real output called `name`."""
        self._outputs.append(Output(name, source))

    def build(self, output_structure: str = "tensor") -> IntegerProgram:
        """The checked program."""
        return IntegerProgram(
            inputs=tuple(self._inputs),
            outputs=tuple(self._outputs),
            values=tuple(entry for entry in self._known.values() if isinstance(entry, Value)),
            constants=tuple(entry for entry in self._known.values() if isinstance(entry, Constant)),
            operations=tuple(self._operations),
            output_structure=output_structure,
        )

    def grid(self, source: str) -> Grid:
        """The grid of a value."""
        return self._known[source].grid

    def shape(self, source: str) -> tuple[int, ...]:
        """The shape of a value, without the batch."""
        return tuple(self._known[source].shape)

    def conv(
        self,
        name: str,
        source: str,
        weight: Weight,
        grid: Grid,
        bias: Tensor | None = None,
        stride: tuple[int, ...] | None = None,
        padding: Pairs | None = None,
        dilation: tuple[int, ...] | None = None,
        groups: int = 1,
        clamp: Clamp = None,
        module: str | None = None,
    ) -> str:
        """Convolution. bias: int32 (O,)."""
        dims = weight.codes.dim() - 2
        geometry = dict(
            stride=stride or (1,) * dims,
            padding=padding or ((0, 0),) * dims,
            dilation=dilation or (1,) * dims,
            groups=groups,
        )
        return self._weighted(Conv, name, source, weight, grid, bias, clamp, module, **geometry)

    def linear(
        self,
        name: str,
        source: str,
        weight: Weight,
        grid: Grid,
        bias: Tensor | None = None,
        clamp: Clamp = None,
        module: str | None = None,
    ) -> str:
        """Matrix product over the last dimension. bias: int32 (O,)."""
        return self._weighted(Linear, name, source, weight, grid, bias, clamp, module)

    def add(
        self, name: str, first: str, second: str, grid: Grid, clamp: Clamp = None, module: str | None = None
    ) -> str:
        """Sum of two values, or of a value and a constant."""
        factors = SumMultipliers.from_grids(self.grid(first), self.grid(second), grid)
        return self._computing(Add, name, (first, second), grid, clamp, module, factors=factors)

    def mul(
        self, name: str, first: str, second: str, grid: Grid, clamp: Clamp = None, module: str | None = None
    ) -> str:
        """Product of two values, or of a value and a constant."""
        multiplier = Multiplier.from_scales(self.grid(first).scale, self.grid(second).scale, grid.scale)
        return self._computing(Mul, name, (first, second), grid, clamp, module, multiplier=multiplier)

    def requantize(
        self, name: str, source: str, grid: Grid, factor: float = 1.0, clamp: Clamp = None, module: str | None = None
    ) -> str:
        """The value times `factor` on another grid."""
        factor = float32(factor)
        multiplier = Multiplier.from_scales(self.grid(source).scale, abs(factor), grid.scale)
        return self._computing(Requantize, name, (source,), grid, clamp, module, factor=factor, multiplier=multiplier)

    def average_pool(
        self,
        name: str,
        source: str,
        kernel_size: tuple[int, ...],
        grid: Grid,
        stride: tuple[int, ...] | None = None,
        padding: Pairs | None = None,
        clamp: Clamp = None,
        module: str | None = None,
    ) -> str:
        """Mean over windows; the stride is by default the window."""
        share = float32(1 / math.prod(kernel_size))
        settings = dict(
            kernel_size=kernel_size,
            stride=stride or kernel_size,
            padding=padding or ((0, 0),) * len(kernel_size),
            multiplier=Multiplier.from_scales(self.grid(source).scale, share, grid.scale),
        )
        return self._computing(AveragePool, name, (source,), grid, clamp, module, **settings)

    def mean(
        self,
        name: str,
        source: str,
        dims: tuple[int, ...],
        grid: Grid,
        keepdim: bool = False,
        clamp: Clamp = None,
        module: str | None = None,
    ) -> str:
        """Mean over dimensions; the batch is dimension 0."""
        shape = self.shape(source)
        count = math.prod(shape[dim - 1] for dim in dims if 1 <= dim <= len(shape))
        multiplier = Multiplier.from_scales(self.grid(source).scale, float32(1 / count), grid.scale)
        settings = dict(dims=tuple(dims), keepdim=keepdim, multiplier=multiplier)
        return self._computing(Mean, name, (source,), grid, clamp, module, **settings)

    def max_pool(
        self,
        name: str,
        source: str,
        kernel_size: tuple[int, ...],
        stride: tuple[int, ...] | None = None,
        padding: Pairs | None = None,
        dilation: tuple[int, ...] | None = None,
        ceil_mode: bool = False,
        module: str | None = None,
    ) -> str:
        """Largest code of each window; the stride is by default the window."""
        dims = len(kernel_size)
        settings = dict(
            kernel_size=kernel_size,
            stride=stride or kernel_size,
            padding=padding or ((0, 0),) * dims,
            dilation=dilation or (1,) * dims,
            ceil_mode=ceil_mode,
        )
        return self._moving(MaxPool, name, (source,), module, **settings)

    def max(
        self, name: str, source: str, dims: tuple[int, ...], keepdim: bool = False, module: str | None = None
    ) -> str:
        """Largest code over dimensions; the batch is dimension 0."""
        return self._moving(Max, name, (source,), module, dims=tuple(dims), keepdim=keepdim)

    def concatenate(self, name: str, sources: tuple[str, ...], dim: int, module: str | None = None) -> str:
        """Values one after another along `dim`."""
        return self._moving(Concatenate, name, tuple(sources), module, dim=dim)

    def reshape(self, name: str, source: str, shape: tuple[int, ...], module: str | None = None) -> str:
        """Another shape, without the batch."""
        return self._moving(Reshape, name, (source,), module, shape=tuple(shape))

    def transpose(self, name: str, source: str, permutation: tuple[int, ...], module: str | None = None) -> str:
        """Dimensions in another order, the batch's 0 first."""
        return self._moving(Transpose, name, (source,), module, permutation=tuple(permutation))

    def slice(
        self,
        name: str,
        source: str,
        starts: tuple[int, ...],
        ends: tuple[int, ...],
        steps: tuple[int, ...] | None = None,
        module: str | None = None,
    ) -> str:
        """A cut along every dimension after the batch."""
        settings = dict(starts=tuple(starts), ends=tuple(ends), steps=steps or (1,) * len(starts))
        return self._moving(Slice, name, (source,), module, **settings)

    def pad(self, name: str, source: str, amounts: Pairs, module: str | None = None) -> str:
        """Real zeros around the value, (before, after) per dimension after the batch."""
        return self._moving(Pad, name, (source,), module, amounts=tuple(amounts))

    def _weighted(self, kind, name, source, weight, grid, bias, clamp, module, **settings) -> str:
        bias = torch.zeros(len(weight.codes), dtype=torch.int32) if bias is None else bias
        multiplier = Multiplier.from_scales(self.grid(source).scale, weight.scale, grid.scale)
        settings |= dict(weight=weight, bias=bias, multiplier=multiplier)
        return self._computing(kind, name, (source,), grid, clamp, module, **settings)

    def _computing(self, kind, name, sources, grid, clamp, module, **settings) -> str:
        low, high = clamp or (grid.quant_min, grid.quant_max)
        return self._append(kind, name, sources, grid, module, clamp_min=low, clamp_max=high, **settings)

    def _moving(self, kind: type[MovingOperation], name, sources, module, **settings) -> str:
        return self._append(kind, name, sources, self.grid(sources[0]), module, **settings)

    def _append(self, kind: type[Operation], name, sources, grid, module, **settings) -> str:
        source = name if module is None else module
        operation = kind(name=name, source=source, inputs=tuple(sources), output=name, **settings)
        shape = operation.output_shape(*(self.shape(entry) for entry in sources))
        self._known[name] = Value(name, tuple(shape), grid)
        self._operations.append(operation)
        return name
