"""Writing an integer program operation by operation: names, shapes and multipliers follow from what is given."""

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from qat.integer import operations as ops
from qat.integer.assembly import Assembly, Clamp
from qat.integer.fixed_point import Multiplier, SumMultipliers
from qat.integer.float_functions import Argument
from qat.integer.operations.islands import FloatWeight
from qat.integer.program import IntegerProgram
from qat.integer.values import Grid, Weight, float32

Pairs = tuple[tuple[int, int], ...]


class ProgramBuilder(Assembly):
    """Collects a program. Each method adds one operation called `name` and returns the name of its value, the same.

    sources are names of values. grid: of the result. clamp: codes (min, max) of a fused activation; None: all of the
    grid. module: path of the module an operation came from, for reports; by default its name.
    """

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
        return self._weighted(ops.Conv, name, source, weight, grid, bias, clamp, module, **geometry)

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
        return self._weighted(ops.Linear, name, source, weight, grid, bias, clamp, module)

    def add(
        self, name: str, first: str, second: str, grid: Grid, clamp: Clamp = None, module: str | None = None
    ) -> str:
        """Sum of two values, or of a value and a constant."""
        factors = SumMultipliers.from_grids(self.grid(first), self.grid(second), grid)
        return self._computing(ops.Add, name, (first, second), grid, clamp, module, factors=factors)

    def mul(
        self, name: str, first: str, second: str, grid: Grid, clamp: Clamp = None, module: str | None = None
    ) -> str:
        """Product of two values, or of a value and a constant."""
        multiplier = Multiplier.from_scales(self.scale(first), self.scale(second), grid.scale)
        return self._computing(ops.Mul, name, (first, second), grid, clamp, module, multiplier=multiplier)

    def requantize(
        self, name: str, source: str, grid: Grid, factor: float = 1.0, clamp: Clamp = None, module: str | None = None
    ) -> str:
        """The value times `factor` on another grid."""
        factor = float32(factor)
        multiplier = Multiplier.from_scales(self.scale(source), abs(factor), grid.scale)
        return self._computing(
            ops.Requantize, name, (source,), grid, clamp, module, factor=factor, multiplier=multiplier
        )

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
            multiplier=Multiplier.from_scales(self.scale(source), share, grid.scale),
        )
        return self._computing(ops.AveragePool, name, (source,), grid, clamp, module, **settings)

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
        return self._reduction(ops.Mean, name, source, dims, grid, keepdim, clamp, module)

    def sum(
        self,
        name: str,
        source: str,
        dims: tuple[int, ...],
        grid: Grid,
        keepdim: bool = False,
        clamp: Clamp = None,
        module: str | None = None,
    ) -> str:
        """Sum over dimensions; the batch is dimension 0."""
        return self._reduction(ops.Sum, name, source, dims, grid, keepdim, clamp, module)

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
        return self._moving(ops.MaxPool, name, (source,), module, **settings)

    def max(
        self, name: str, source: str, dims: tuple[int, ...], keepdim: bool = False, module: str | None = None
    ) -> str:
        """Largest code over dimensions; the batch is dimension 0."""
        return self._moving(ops.Max, name, (source,), module, dims=tuple(dims), keepdim=keepdim)

    def concatenate(self, name: str, sources: tuple[str, ...], dim: int, module: str | None = None) -> str:
        """Values one after another along `dim`."""
        return self._moving(ops.Concatenate, name, tuple(sources), module, dim=dim)

    def reshape(self, name: str, source: str, shape: tuple[int, ...], module: str | None = None) -> str:
        """Another shape, without the batch."""
        return self._moving(ops.Reshape, name, (source,), module, shape=tuple(shape))

    def transpose(self, name: str, source: str, permutation: tuple[int, ...], module: str | None = None) -> str:
        """Dimensions in another order, the batch's 0 first."""
        return self._moving(ops.Transpose, name, (source,), module, permutation=tuple(permutation))

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
        return self._moving(ops.Slice, name, (source,), module, **settings)

    def pad(self, name: str, source: str, amounts: Pairs, module: str | None = None) -> str:
        """Real zeros around the value, (before, after) per dimension after the batch."""
        return self._moving(ops.Pad, name, (source,), module, amounts=tuple(amounts))

    def matmul(
        self,
        name: str,
        first: str,
        second: str,
        grid: Grid,
        factor: float = 1.0,
        clamp: Clamp = None,
        module: str | None = None,
    ) -> str:
        """Matrix product of two values, or of a value and a constant, times `factor`."""
        factor = float32(factor)
        multiplier = ops.MatMul.multiplier_of(self.scale(first), self.scale(second), factor, grid.scale)
        settings = dict(factor=factor, multiplier=multiplier)
        return self._computing(ops.MatMul, name, (first, second), grid, clamp, module, **settings)

    def table(
        self, name: str, source: str, codes: Tensor, grid: Grid, function: str = "", module: str | None = None
    ) -> str:
        """A function of one value. codes: (n,) or (C, n), as `table_codes` makes them. function: its name."""
        return self._computing(ops.Table, name, (source,), grid, None, module, codes=codes, function=function)

    def divide(
        self, name: str, first: str, second: str, grid: Grid, clamp: Clamp = None, module: str | None = None
    ) -> str:
        """One value over another, either of which may be a constant."""
        ratio = ops.Ratio.from_grids(self.grid(first), self.grid(second), grid)
        return self._computing(ops.Divide, name, (first, second), grid, clamp, module, ratio=ratio)

    def float_island(
        self,
        name: str,
        function: str,
        operands: Mapping[str, str | Tensor],
        grid: Grid,
        arguments: Mapping[str, Argument] | None = None,
        merged: int = 0,
        clamp: Clamp = None,
        module: str | None = None,
    ) -> str:
        """A function of real numbers. operands: by what the function calls them, names of values or real constants."""
        values = {key: source for key, source in operands.items() if isinstance(source, str)}
        weights = tuple(
            FloatWeight(key, source) for key, source in operands.items() if not isinstance(source, str)
        )  # fmt: skip
        return self._computing(
            ops.FloatIsland, name, tuple(values.values()), grid, clamp, module, function=function,
            operands=tuple(values), weights=weights, arguments=ops.FloatIsland.written(arguments or {}), merged=merged,
        )  # fmt: skip

    def softmax(
        self,
        name: str,
        source: str,
        dim: int,
        grid: Grid,
        mask: str | None = None,
        clamp: Clamp = None,
        module: str | None = None,
    ) -> str:
        """Softmax over one dimension, of the elements whose mask is 1."""
        factors = ops.SoftmaxFactors.from_grids(self.grid(source), grid, self.shape(source)[dim - 1])
        sources = (source,) if mask is None else (source, mask)
        return self._computing(ops.Softmax, name, sources, grid, clamp, module, dim=dim, factors=factors)

    def log_softmax(
        self, name: str, source: str, dim: int, grid: Grid, clamp: Clamp = None, module: str | None = None
    ) -> str:
        """Logarithm of the softmax over one dimension."""
        factors = ops.LogSoftmaxFactors.from_grids(self.grid(source), grid, self.shape(source)[dim - 1])
        return self._computing(ops.LogSoftmax, name, (source,), grid, clamp, module, dim=dim, factors=factors)

    def normalize(
        self,
        name: str,
        source: str,
        dims: tuple[int, ...],
        grid: Grid,
        centered: bool = True,
        l2: bool = False,
        epsilon: float = 1e-5,
        gain: Tensor | None = None,
        shift: Tensor | None = None,
        clamp: Clamp = None,
        module: str | None = None,
    ) -> str:
        """Layer, group or instance norm (centered), RMS norm (not centered) or division by the L2 norm, over `dims`."""
        count = math.prod(self.shape(source)[dim - 1] for dim in dims)
        factors = ops.NormalizeFactors.from_grids(
            self.grid(source), grid, count, centered=centered, l2=l2, epsilon=epsilon, gain=gain, shift=shift
        )
        settings = dict(dims=tuple(dims), centered=centered, l2=l2, factors=factors)
        return self._computing(ops.Normalize, name, (source,), grid, clamp, module, **settings)

    def take(self, name: str, source: str, dim: int, indices, module: str | None = None) -> str:
        """Entries of one dimension. indices: integers."""
        indices = torch.as_tensor(indices, dtype=torch.int64)
        return self._moving(ops.Take, name, (source,), module, dim=dim, indices=indices)

    def expand(self, name: str, source: str, shape: tuple[int, ...], module: str | None = None) -> str:
        """Dimensions of size 1 repeated to `shape`, without the batch."""
        return self._moving(ops.Expand, name, (source,), module, shape=tuple(shape))

    def negate(self, name: str, source: str, module: str | None = None) -> str:
        """Minus the value, on the mirrored grid."""
        return self._moving(ops.Negate, name, (source,), module)

    def select(self, name: str, mask: str, first: str, second: str, module: str | None = None) -> str:
        """`first` where the mask is 1, else `second`."""
        return self._moving(ops.Select, name, (mask, first, second), module)

    def embedding(self, name: str, source: str, weight: Weight, module: str | None = None) -> str:
        """Rows of a weight by indices."""
        return self._moving(ops.Embedding, name, (source,), module, weight=weight)

    def gather(self, name: str, source: str, indices: str, dim: int, module: str | None = None) -> str:
        """Entries of a value along `dim`, chosen by another."""
        return self._moving(ops.Gather, name, (source, indices), module, dim=dim)

    def index_table(self, name: str, source: str, codes, count: int | None = None, module: str | None = None) -> str:
        """A function of an index. codes: the index for each of the input; count: of the output's range."""
        codes = torch.as_tensor(codes, dtype=torch.int64)
        count = int(codes.max()) + 1 if count is None else count
        return self._moving(ops.IndexTable, name, (source,), module, codes=codes, count=count)

    def index_sum(self, name: str, first: str, second: str, module: str | None = None) -> str:
        """Sum of two indices."""
        return self._moving(ops.IndexSum, name, (first, second), module)

    def index_product(self, name: str, first: str, second: str, module: str | None = None) -> str:
        """Product of two indices."""
        return self._moving(ops.IndexProduct, name, (first, second), module)

    def cumulative_sum(self, name: str, source: str, dim: int, module: str | None = None) -> str:
        """Sum of the indices along `dim` up to each."""
        return self._moving(ops.CumulativeSum, name, (source,), module, dim=dim)

    def arg_max(self, name: str, source: str, dim: int, keepdim: bool = False, module: str | None = None) -> str:
        """Index of the largest code along `dim`."""
        return self._moving(ops.ArgMax, name, (source,), module, dim=dim, keepdim=keepdim)

    def top_k(
        self, name: str, source: str, dim: int, k: int, largest: bool = True, module: str | None = None
    ) -> tuple[str, str]:
        """The `k` most extreme codes along `dim`, and where they lie: values `name`/values and `name`/indices."""
        settings = dict(dim=dim, k=k, largest=largest)
        kinds = {"values": ops.TopKValues, "indices": ops.TopKIndices}
        names = (self._moving(kind, f"{name}/{key}", (source,), module, **settings) for key, kind in kinds.items())
        return tuple(names)

    def loop(
        self,
        name: str,
        sequences: tuple[str, ...],
        states: tuple[str, ...],
        body: IntegerProgram,
        reverse: bool = False,
        module: str | None = None,
    ) -> tuple[str, ...]:
        """`body` for every step of the sequences: its stacked last output, and the states behind the last step.

        Those are called as the body's outputs, behind `name`/.
        """
        last = tuple(f"{name}/{edge.name}" for edge in body.outputs[:-1])
        settings = dict(body=body, last=last, reverse=reverse)
        output = self._moving(ops.Loop, name, (*sequences, *states), module, **settings)
        for state, edge in zip(last, body.outputs, strict=False):
            self._known[state] = replace(body.value(edge.value), name=state)
        return output, *last

    def _weighted(self, kind, name, source, weight, grid, bias, clamp, module, **settings) -> str:
        bias = torch.zeros(len(weight.codes), dtype=torch.int32) if bias is None else bias
        multiplier = Multiplier.from_scales(self.scale(source), weight.scale, grid.scale)
        settings |= dict(weight=weight, bias=bias, multiplier=multiplier)
        return self._computing(kind, name, (source,), grid, clamp, module, **settings)

    def _reduction(self, kind, name, source, dims, grid, keepdim, clamp, module) -> str:
        shape = self.shape(source)
        count = math.prod(shape[dim - 1] for dim in dims if 1 <= dim <= len(shape))
        multiplier = Multiplier.from_scales(self.scale(source), kind.share(count), grid.scale)
        settings = dict(dims=tuple(dims), keepdim=keepdim, multiplier=multiplier)
        return self._computing(kind, name, (source,), grid, clamp, module, **settings)
