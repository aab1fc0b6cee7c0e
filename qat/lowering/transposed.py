"""Transposed convolutions: a convolution, with the kernel turned around, of the input with zeros between its codes.

No runtime has an integer kernel for them, and none is needed: zeros are the code zero_point, as in any padding.
"""

import functools
import math

from torch import Tensor
from torch.fx import Node

from qat.integer.geometry import per_dimension
from qat.integer.program import Conv, Pad, Reshape, Slice
from qat.lowering.state import Pending, Program, Quantized
from qat.lowering.weighted import WeightCodes, check_weighted, codes_of, weighted


def conv_transpose(
    program: Program, node: Node, x, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1
) -> Pending:
    """aten.conv_transpose1d, aten.conv_transpose2d.input, aten.conv_transpose3d.input."""
    check_weighted(x, weight)
    kernel = tuple(weight.tensor.shape[2:])
    dims = len(kernel)
    stride, padding, extra, dilation = (
        per_dimension(value, dims) for value in (stride, padding, output_padding, dilation)
    )
    x = _with_zeros_between(program, node, x, stride)
    # the zeros behind the last code count as padding
    pads = [
        (spread * (size - 1) - amount, spread * (size - 1) - amount + more - (step - 1))
        for size, amount, more, spread, step in zip(kernel, padding, extra, dilation, stride, strict=True)
    ]
    x = _cut(program, node, x, [(max(-before, 0), max(-after, 0)) for before, after in pads])
    attributes = {
        "stride": (1,) * dims,
        "padding": tuple((max(before, 0), max(after, 0)) for before, after in pads),
        "dilation": dilation,
        "groups": groups,
    }
    return weighted(node, Conv, x, weight, bias, attributes, functools.partial(_turned_around, groups=groups))


def _with_zeros_between(program: Program, node: Node, x: Quantized, stride: tuple[int, ...]) -> Quantized:
    """`x` (C, *spatial) with stride - 1 zeros behind every code, along each spatial dimension."""
    if math.prod(stride) == 1:
        return x
    channels, *spatial = x.shape
    apart = (channels, *(size for length in spatial for size in (length, 1)))
    zeros = ((0, 0), *(pair for step in stride for pair in ((0, 0), (0, step - 1))))
    padded = tuple(size + after for size, (_, after) in zip(apart, zeros, strict=True))
    together = (channels, *(length * step for length, step in zip(spatial, stride, strict=True)))
    x = program.move(node, x, apart, Reshape, shape=apart)
    x = program.move(node, x, padded, Pad, amounts=zeros)
    return program.move(node, x, together, Reshape, shape=together)


def _cut(program: Program, node: Node, x: Quantized, amounts: list[tuple[int, int]]) -> Quantized:
    """`x` without `amounts` (before, after) of each spatial dimension."""
    if not any(map(any, amounts)):
        return x
    channels, *spatial = x.shape
    starts = (0, *(before for before, _ in amounts))
    ends = (channels, *(size - after for size, (_, after) in zip(spatial, amounts, strict=True)))
    shape = tuple(end - start for start, end in zip(starts, ends, strict=True))
    return program.move(node, x, shape, Slice, starts=starts, ends=ends, steps=(1,) * len(shape))


def _turned_around(weight, groups: int) -> WeightCodes:
    """Codes of a weight (I, O / groups, *kernel) as those of the convolution, (O, I / groups, *kernel).

    Its scales, one for each of the O / groups channels of a group, or one for each of O = groups channels, become one
    for each of O.
    """
    codes, bits, kernel, scale = codes_of(weight)
    inputs, outputs, *sizes = codes.shape
    split = codes.reshape(groups, inputs // groups, outputs, *sizes).transpose(1, 2)
    turned = split.reshape(groups * outputs, inputs // groups, *sizes).flip(tuple(range(2, codes.dim())))
    return turned, bits, kernel, _scale_of_outputs(scale, groups * outputs)


def _scale_of_outputs(scale: Tensor, channels: int) -> Tensor:
    return scale if scale.numel() in (1, channels) else scale.repeat(channels // scale.numel())
