"""Layers with weights: convolution, linear, and a batch norm that stands alone."""

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor
from torch.fx import Node

from qat import folding
from qat.errors import ConversionError
from qat.folding import BatchNorm, KernelWeight
from qat.integer.geometry import per_dimension
from qat.integer.program import Conv, Grid, Linear, Multiplier, Reshape, Transpose, Weight, WeightGrid
from qat.lowering import products
from qat.lowering.state import (
    Pending,
    Program,
    Quantized,
    QuantizedConstant,
    Unlowerable,
    batch_shape,
    check_quantized,
    module_path,
)

#: (codes int8, outputs first; bits; kernel integers of a code; scale per output channel or scalar).
WeightCodes = tuple[Tensor, int, KernelWeight, Tensor]


def conv(program: Program, node: Node, x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1) -> Pending:
    """aten.conv1d, aten.conv2d, aten.conv3d."""
    check_weighted(x, weight)
    dims = weight.tensor.dim() - 2
    kernel, dilation = tuple(weight.tensor.shape[2:]), per_dimension(dilation, dims)
    attributes = {
        "stride": per_dimension(stride, dims),
        "padding": _conv_padding(padding, kernel, dilation),
        "dilation": dilation,
        "groups": groups,
    }
    return weighted(node, Conv, x, weight, bias, attributes)


def linear(program: Program, node: Node, x, weight, bias=None) -> Pending:
    """aten.linear, whose last dimension is not the batch; that may be any other."""
    check_weighted(x, weight)
    if x.batch_at == x.rank - 1:
        raise Unlowerable("it multiplies the samples of the batch with each other; keep dimension 0 for the batch")
    return weighted(node, Linear, x, weight, bias, {})


def addmm(program: Program, node: Node, bias, x, weight, beta=1, alpha=1) -> Pending:
    """aten.addmm: a linear layer whose weight is (inputs, outputs)."""
    if beta != 1 or alpha != 1:
        raise Unlowerable(f"beta={beta} and alpha={alpha} scale its parts; multiply them outside")
    return linear(program, node, x, _transposed(weight), bias)


def matmul(program: Program, node: Node, first, second) -> Pending:
    """aten.matmul, aten.mm, aten.bmm: a linear layer where the second factor is a constant matrix, else of values."""
    if isinstance(second, QuantizedConstant) and second.tensor.dim() == 2:
        return linear(program, node, first, _transposed(second))
    return products.matmul(program, node, first, second)


def _transposed(weight):
    return dataclasses.replace(weight, transposed=True) if isinstance(weight, QuantizedConstant) else weight


def batch_norm(
    program: Program, node: Node, x, weight, bias, mean, variance, training, momentum, eps, cudnn
) -> Pending:
    """aten.batch_norm in eval mode: folded into the layer before it, or a depthwise convolution of its own."""
    constants = BatchNorm(mean, variance, weight, bias, eps)
    if isinstance(x, Pending) and x.fold is not None:
        return x.fold(constants)
    check_quantized(x)
    multiplier, shift = constants.affine(None)
    features, merged = len(x.shape) == 1, x.merged
    if merged and x.rank > 2:
        raise Unlowerable("its batch is merged with another dimension; keep dimension 0 for the batch")
    if merged:  # (samples and positions, channels): the channels come first
        x = program.move(node, x, (x.shape[1], x.shape[0]), Transpose, permutation=(0, 2, 1))
    elif features:  # a convolution needs a spatial dimension
        x = program.move(node, x, (*x.shape, 1), Reshape, shape=(*x.shape, 1))
    channels, dims = x.shape[0], len(x.shape) - 1
    if dims > 3:
        raise Unlowerable(
            f"a batch norm over {dims} spatial dimensions that follows no convolution has no integer kernel; "
            "put it behind one"
        )

    def build(name, output, grid, clamp_min, clamp_max):
        codes = torch.full((channels, 1, *[1] * dims), 127, dtype=torch.int8)
        arithmetic = _fold(x.grid, codes, KernelWeight(1, 0), torch.tensor(1 / 127), 8, (multiplier, shift), name)
        one = (1,) * dims
        return Conv(
            name=name, source=module_path(node), inputs=(x.name,), output=output, clamp_min=clamp_min,
            clamp_max=clamp_max, stride=one, padding=((0, 0),) * dims, dilation=one, groups=channels,
            **arithmetic(grid),
        )  # fmt: skip

    return Pending(
        x.shape, build, view=x.shape[:1] if features else None, turn=(0, 2, 1) if merged else None, merged=merged
    )


def weighted(
    node: Node,
    kind,
    x: Quantized,
    weight: QuantizedConstant,
    bias: Tensor | None,
    attributes: dict,
    read: Callable[[QuantizedConstant], WeightCodes] | None = None,
) -> Pending:
    """A layer of `kind`, to which a batch norm may be added. read: takes the weight apart, outputs first."""

    def pending(affine, foldable: bool) -> Pending:
        def build(name, output, grid, clamp_min, clamp_max):
            codes, bits, kernel, scale = (read or codes_of)(weight)
            arithmetic = _fold(x.grid, codes, kernel, scale, bits, affine, name)
            return kind(
                name=name, source=module_path(node), inputs=(x.name,), output=output, clamp_min=clamp_min,
                clamp_max=clamp_max, **attributes, **arithmetic(grid),
            )  # fmt: skip

        def fold(batch_norm: BatchNorm) -> Pending:
            return pending(batch_norm.affine(bias), foldable=False)

        shape = batch_shape(node, batch_at=x.batch_at if kind is Linear else 0)
        return Pending(shape, build, fold=fold if foldable and not x.batch_at else None)

    return pending((None, bias), foldable=True)


def weight_of(weight: QuantizedConstant) -> Weight:
    """A quantized matrix, (rows, columns), as the program stores it; its one scale is that of every row."""
    codes, bits, kernel, scale = codes_of(weight)
    scales = (scale.float() / kernel.step).expand(len(codes)).contiguous()
    return Weight(codes.contiguous(), WeightGrid(bits, kernel.step, kernel.offset), scales)


def codes_of(weight: QuantizedConstant) -> WeightCodes:
    """A weight as its layer has it."""
    quantizer = weight.quantizer
    codes = quantizer.codes(weight.tensor).to(torch.int8)
    return (
        codes.T if weight.transposed else codes,
        quantizer.bits,
        quantizer.kernel_weight(),
        quantizer.qparams().scale,
    )


def _fold(input_grid: Grid, codes: Tensor, kernel: KernelWeight, scale: Tensor, bits: int, affine, name: str):
    """Weight, bias and multipliers of a layer, given its output grid: the arithmetic that training simulated.

    affine: (multiplier or None, shift or None) behind the sum of products, each (O,).
    """
    channels = codes.shape[0]
    input_scale = torch.tensor(input_grid.scale, dtype=torch.float32)
    kernel_scale = (scale.float() / kernel.step).expand(channels)
    multiplier, shift = affine
    if multiplier is not None:
        kernel_scale, dead = folding.fold_scale(input_scale, kernel_scale, multiplier, shift)
        codes = _signed(codes, multiplier, dead, kernel, name)
    bias = torch.zeros(channels) if shift is None else folding.bias_codes(shift.float(), input_scale * kernel_scale)
    weight = Weight(codes.contiguous(), WeightGrid(bits, kernel.step, kernel.offset), kernel_scale.contiguous())

    def arithmetic(output_grid: Grid) -> dict:
        return {
            "weight": weight,
            "bias": bias.to(torch.int32),
            "multiplier": Multiplier.from_scales(input_grid.scale, weight.scale, output_grid.scale),
        }

    return arithmetic


def _signed(codes: Tensor, multiplier: Tensor, dead: Tensor, kernel: KernelWeight, name: str) -> Tensor:
    """Codes with the sign of the batch norm's multiplier taken in, and dead channels at zero."""
    shape = (-1,) + (1,) * (codes.dim() - 1)
    flipped = -codes - 1 if kernel.offset else -codes
    codes = torch.where((multiplier < 0).view(shape), flipped, codes)
    if kernel.offset and bool(dead.any()):
        raise ConversionError(
            f"the batch norm behind {name} scales channel {int(dead.nonzero()[0])} to nearly nothing, and a 2-bit grid "
            f"has no zero to put there; keep {name} at 3 bits or more with a rule."
        )
    return torch.where(dead.view(shape), torch.zeros_like(codes), codes)


def check_weighted(x, weight) -> None:
    """Refuse a layer whose input is no value of the program, or whose weight is no quantized constant."""
    check_quantized(x)
    if not isinstance(weight, QuantizedConstant):
        raise Unlowerable("its weight is not quantized, or not a constant")


def _conv_padding(padding, kernel: tuple[int, ...], dilation: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    if padding == "valid":
        return ((0, 0),) * len(kernel)
    if padding == "same":  # torch puts the odd one at the end
        totals = [spread * (size - 1) for size, spread in zip(kernel, dilation, strict=True)]
        return tuple((total // 2, total - total // 2) for total in totals)
    return tuple((amount, amount) for amount in per_dimension(padding, len(kernel)))
