"""Pools and reductions."""

import math
import operator

from torch.fx import Node

from qat.integer.geometry import per_dimension
from qat.integer.operations import Sum
from qat.integer.program import AveragePool, Max, MaxPool, Mean, Multiplier, Reshape, float32
from qat.lowering.resampled import unequal_windows
from qat.lowering.state import Pending, Program, Quantized, Unlowerable, batch_shape, check_quantized, module_path
from qat.lowering.taking import take


def max_pool(dims: int):
    """aten.max_pool1d, aten.max_pool2d."""

    def lower(
        program: Program, node: Node, x, kernel_size, stride=(), padding=0, dilation=1, ceil_mode=False
    ) -> Quantized:
        return _max_pool(program, node, x, dims, batch_shape(node), kernel_size, stride, padding, dilation, ceil_mode)

    return lower


def max_pool_with_indices(dims: int):
    """aten.max_pool1d_with_indices, aten.max_pool2d_with_indices: (largest, no indices)."""

    def lower(
        program: Program, node: Node, x, kernel_size, stride=(), padding=0, dilation=1, ceil_mode=False
    ) -> tuple[Quantized, None]:
        _refuse_indices(node)
        shape = batch_shape(node, 0)
        return _max_pool(program, node, x, dims, shape, kernel_size, stride, padding, dilation, ceil_mode), None

    return lower


def avg_pool(dims: int):
    """aten.avg_pool1d, aten.avg_pool2d."""

    def lower(
        program: Program, node: Node, x, kernel_size, stride=(), padding=0, ceil_mode=False, count_include_pad=True,
        divisor_override=None,
    ) -> Pending:  # fmt: skip
        arguments = (x, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)
        unequal = unequal_windows(f"avg_pool{dims}d", program, node, arguments, {})
        if unequal is not None:
            return unequal
        kernel, pads = per_dimension(kernel_size, dims), per_dimension(padding, dims)
        return _average(node, x, kernel, per_dimension(stride, dims) or kernel, tuple((p, p) for p in pads))

    return lower


def adaptive_avg_pool(dims: int):
    """aten.adaptive_avg_pool1d, aten.adaptive_avg_pool2d."""

    def lower(program: Program, node: Node, x, output_size) -> Pending:
        unequal = unequal_windows(f"adaptive_avg_pool{dims}d", program, node, (x, output_size), {})
        if unequal is not None:
            return unequal
        shape = batch_shape(node)
        if all(size == 1 for size in shape[-dims:]):
            return _mean(node, x, _last(x, dims), keepdim=True)
        kernel = _even_windows(x, shape, dims)
        return _average(node, x, kernel, kernel, ((0, 0),) * dims)

    return lower


def adaptive_max_pool(dims: int):
    """aten.adaptive_max_pool1d, aten.adaptive_max_pool2d: (largest, no indices)."""

    def lower(program: Program, node: Node, x, output_size) -> tuple[Quantized, None]:
        check_quantized(x)
        _refuse_indices(node)
        shape = batch_shape(node, 0)
        if all(size == 1 for size in shape[-dims:]):
            return program.move(node, x, shape, Max, dims=_last(x, dims), keepdim=True), None
        if any(size % want for size, want in zip(x.shape[-dims:], shape[-dims:], strict=True)):
            for dim in _last(x, dims):
                x = _largest_of_windows(program, node, x, dim, shape[dim - 1])
            return x, None
        kernel, ones = _even_windows(x, shape, dims), (1,) * dims
        return program.move(
            node, x, shape, MaxPool, kernel_size=kernel, stride=kernel, padding=((0, 0),) * dims, dilation=ones,
            ceil_mode=False,
        ), None  # fmt: skip

    return lower


def mean(program: Program, node: Node, x, dims=None, keepdim=False, dtype=None) -> Pending:
    """aten.mean.dim."""
    check_quantized(x)
    return _mean(node, x, _reduced(x, dims), keepdim)


def total(program: Program, node: Node, x, dims=None, keepdim=False, dtype=None) -> Pending:
    """aten.sum."""
    check_quantized(x)
    dims = _reduced(x, dims)

    def build(name, output, grid, clamp_min, clamp_max):
        return Sum(
            name=name, source=module_path(node), inputs=(x.name,), output=output, clamp_min=clamp_min,
            clamp_max=clamp_max, dims=dims, keepdim=keepdim,
            multiplier=Multiplier.from_scales(x.grid.scale, 1.0, grid.scale),
        )  # fmt: skip

    return Pending(batch_shape(node), build)


def amax(program: Program, node: Node, x, dims=(), keepdim=False) -> Quantized:
    """aten.amax."""
    check_quantized(x)
    return program.move(node, x, batch_shape(node), Max, dims=_reduced(x, dims), keepdim=keepdim)


def _reduced(x: Quantized, dims) -> tuple[int, ...]:
    if dims is None or dims == []:
        dims = range(x.rank)
    return tuple(sorted(x.dim(dim, "reduces over") for dim in (dims if isinstance(dims, list | range) else [dims])))


def _max_pool(program, node, x, dims, shape, kernel_size, stride, padding, dilation, ceil_mode) -> Quantized:
    check_quantized(x)
    kernel = per_dimension(kernel_size, dims)
    return program.move(
        node, x, shape, MaxPool, kernel_size=kernel, stride=per_dimension(stride, dims) or kernel,
        padding=tuple((p, p) for p in per_dimension(padding, dims)), dilation=per_dimension(dilation, dims),
        ceil_mode=ceil_mode,
    )  # fmt: skip


def _last(x: Quantized, dims: int) -> tuple[int, ...]:
    """The last dimensions, counted with the batch."""
    return tuple(range(len(x.shape) + 1 - dims, len(x.shape) + 1))


def _largest_of_windows(program: Program, node: Node, x: Quantized, dim: int, count: int) -> Quantized:
    """The largest of each of `count` windows of nearly equal size along `dim`, smaller ones filled with their last."""
    size = x.shape[dim - 1]
    windows = [range(index * size // count, -((index + 1) * size // -count)) for index in range(count)]
    longest = max(map(len, windows))
    places = [window[min(place, len(window) - 1)] for window in windows for place in range(longest)]
    before, behind = x.shape[: dim - 1], x.shape[dim:]
    x = take(program, node, x, dim, places)
    x = program.move(node, x, (*before, count, longest, *behind), Reshape, shape=(*before, count, longest, *behind))
    return program.move(node, x, (*before, count, *behind), Max, dims=(dim + 1,), keepdim=False)


def _even_windows(x: Quantized, shape: tuple[int, ...], dims: int) -> tuple[int, ...]:
    """Size of the windows, of one size, that an adaptive pool from `x` to `shape` takes."""
    return tuple(size // want for size, want in zip(x.shape[-dims:], shape[-dims:], strict=True))


def _refuse_indices(node: Node) -> None:
    if any(user.target is operator.getitem and user.args[1] == 1 and user.users for user in node.users):
        raise Unlowerable("return_indices=True gives positions, which lie on no grid; use return_indices=False")


def _mean(node: Node, x: Quantized, dims: tuple[int, ...], keepdim: bool) -> Pending:
    count = math.prod(x.shape[dim - 1] for dim in dims)

    def build(name, output, grid, clamp_min, clamp_max):
        return Mean(
            name=name, source=module_path(node), inputs=(x.name,), output=output, clamp_min=clamp_min,
            clamp_max=clamp_max, dims=dims, keepdim=keepdim,
            multiplier=Multiplier.from_scales(x.grid.scale, float32(1 / count), grid.scale),
        )  # fmt: skip

    return Pending(batch_shape(node), build)


def _average(node: Node, x: Quantized, kernel: tuple[int, ...], stride: tuple[int, ...], padding) -> Pending:
    def build(name, output, grid, clamp_min, clamp_max):
        return AveragePool(
            name=name, source=module_path(node), inputs=(x.name,), output=output, clamp_min=clamp_min,
            clamp_max=clamp_max, kernel_size=kernel, stride=stride, padding=padding,
            multiplier=Multiplier.from_scales(x.grid.scale, float32(1 / math.prod(kernel)), grid.scale),
        )  # fmt: skip

    return Pending(batch_shape(node), build)
