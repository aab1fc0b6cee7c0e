"""Pools and reductions."""

import math

from torch.fx import Node

from qat.integer.program import AveragePool, Max, MaxPool, Mean, Multiplier, float32
from qat.lowering.state import Pending, Program, Quantized, Unlowerable, batch_shape, module_path


def max_pool(dims: int):
    """aten.max_pool1d, aten.max_pool2d."""

    def lower(
        program: Program, node: Node, x, kernel_size, stride=(), padding=0, dilation=1, ceil_mode=False
    ) -> Quantized:
        _check_quantized(x)
        kernel = _sizes(kernel_size, dims)
        return program.move(
            node, x, batch_shape(node), MaxPool, kernel_size=kernel, stride=_sizes(stride, dims) or kernel,
            padding=tuple((p, p) for p in _sizes(padding, dims)), dilation=_sizes(dilation, dims), ceil_mode=ceil_mode,
        )  # fmt: skip

    return lower


def avg_pool(dims: int):
    """aten.avg_pool1d, aten.avg_pool2d."""

    def lower(
        program: Program, node: Node, x, kernel_size, stride=(), padding=0, ceil_mode=False, count_include_pad=True,
        divisor_override=None,
    ) -> Pending:  # fmt: skip
        _check_quantized(x)
        kernel, pads = _sizes(kernel_size, dims), _sizes(padding, dims)
        if ceil_mode:
            raise Unlowerable("ceil_mode=True averages windows of unequal size; use ceil_mode=False")
        if not count_include_pad and any(pads):
            raise Unlowerable("count_include_pad=False averages windows of unequal size; use count_include_pad=True")
        if divisor_override:
            raise Unlowerable("divisor_override is no mean; multiply behind the pool instead")
        return _average(node, x, kernel, _sizes(stride, dims) or kernel, tuple((p, p) for p in pads))

    return lower


def adaptive_avg_pool(dims: int):
    """aten.adaptive_avg_pool1d, aten.adaptive_avg_pool2d, where all windows are of one size."""

    def lower(program: Program, node: Node, x, output_size) -> Pending:
        _check_quantized(x)
        sizes, wanted = x.shape[-dims:], batch_shape(node)[-dims:]
        if all(size == 1 for size in wanted):
            return _mean(node, x, tuple(range(len(x.shape) + 1 - dims, len(x.shape) + 1)), keepdim=True)
        if any(size % want for size, want in zip(sizes, wanted, strict=True)):
            raise Unlowerable(
                f"pooling {sizes} to {wanted} averages windows of unequal size; choose output sizes that divide the input"
            )
        kernel = tuple(size // want for size, want in zip(sizes, wanted, strict=True))
        return _average(node, x, kernel, kernel, ((0, 0),) * dims)

    return lower


def mean(program: Program, node: Node, x, dims=None, keepdim=False, dtype=None) -> Pending:
    """aten.mean.dim."""
    _check_quantized(x)
    return _mean(node, x, _reduced(x, dims), keepdim)


def amax(program: Program, node: Node, x, dims=(), keepdim=False) -> Quantized:
    """aten.amax."""
    _check_quantized(x)
    return program.move(node, x, batch_shape(node), Max, dims=_reduced(x, dims), keepdim=keepdim)


def _reduced(x: Quantized, dims) -> tuple[int, ...]:
    rank = len(x.shape) + 1
    positive = tuple(
        sorted(
            dim % rank
            for dim in (dims if isinstance(dims, list | tuple) else [dims] if dims is not None else range(rank))
        )
    )
    if not positive or 0 in positive:
        raise Unlowerable("it reduces over the batch; reduce over the other dimensions only")
    return positive


def _mean(node: Node, x: Quantized, dims: tuple[int, ...], keepdim: bool) -> Pending:
    count = math.prod(x.shape[dim - 1] for dim in dims)

    def build(name, output, grid, clamp_min, clamp_max):
        return Mean(
            name=name, source=module_path(node), inputs=(x.name,), output=output, clamp_min=clamp_min, clamp_max=clamp_max,
            dims=dims, keepdim=keepdim, multiplier=Multiplier.from_scales(x.grid.scale, float32(1 / count), grid.scale),
        )  # fmt: skip

    return Pending(batch_shape(node), build)


def _average(node: Node, x: Quantized, kernel: tuple[int, ...], stride: tuple[int, ...], padding) -> Pending:
    def build(name, output, grid, clamp_min, clamp_max):
        return AveragePool(
            name=name, source=module_path(node), inputs=(x.name,), output=output, clamp_min=clamp_min, clamp_max=clamp_max,
            kernel_size=kernel, stride=stride, padding=padding,
            multiplier=Multiplier.from_scales(x.grid.scale, float32(1 / math.prod(kernel)), grid.scale),
        )  # fmt: skip

    return Pending(batch_shape(node), build)


def _check_quantized(x) -> None:
    if not isinstance(x, Quantized):
        raise Unlowerable("its input is not on an integer grid")


def _sizes(value, dims: int) -> tuple[int, ...]:
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * dims if len(values) == 1 else values
