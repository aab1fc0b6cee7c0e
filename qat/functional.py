"""The arithmetic of quantization, as pure functions on float32 tensors.

A grid is `real = scale * (code - zero_point)` with integer codes in `quant_min..quant_max`; a mid-rise grid has its
levels at odd half steps, `real = scale * (code + 1/2)` (`QuantSpec.midrise`). Everywhere `scale` and `zero_point`
broadcast against `x`: scalars for one grid per tensor, `along_axis` of (C,) for one per channel, and `rows` of `x` with
a trailing dimension of one for one per group.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from qat.spec import QuantSpec

#: Smallest scale ever used, 2^-63: the step of a channel that is all zero, or whose learned step sank to nothing.
#: The product of two scales (the step of an int32 accumulator) is then at least 2^-126, the smallest normal float32,
#: and the reciprocal of a scale, which torch's own kernels multiply by, is finite.
SCALE_FLOOR = 2.0**-63


class Grid(NamedTuple):
    """What `choose_qparams` reads of a `QuantSpec`, for a width that is tensor data (a compiled quantizer)."""

    quant_min: int | Tensor
    quant_max: int | Tensor
    midrise: bool | Tensor
    symmetric: bool
    signed: bool


def along_axis(values: Tensor, ndim: int, axis: int | None) -> Tensor:
    """`values` of shape (C,) shaped to broadcast along dimension `axis` of a tensor of `ndim`; scalars as they are."""
    if axis is None or values.ndim == 0:
        return values
    shape = [1] * ndim
    shape[axis] = -1
    return values.view(shape)


def rows(x: Tensor, axis: int | None = None, group_size: int | None = None) -> Tensor:
    """`x` with all values that share a scale in its last dimension: (n,), (C, n) or (C, groups, group_size).

    axis: the dimension of the channels; None for one scale per tensor. group_size: values per scale, consecutive in
    the flattened other dimensions of a channel. Where it does not divide their number, the last value fills the rest
    of the last group, which changes no range.
    """
    if axis is None:
        return x.reshape(-1)
    channels = x.movedim(axis, 0).flatten(1) if x.ndim > 1 else x.unsqueeze(1)
    if group_size is None:
        return channels
    if missing := -channels.shape[1] % group_size:
        channels = torch.cat([channels, channels[:, -1:].expand(-1, missing)], 1)
    return channels.unflatten(1, (-1, group_size))


def from_rows(grouped: Tensor, shape: torch.Size, axis: int) -> Tensor:
    """The tensor of `shape` whose `rows(x, axis, group_size)` are `grouped`."""
    moved = [shape[axis], *(size for dim, size in enumerate(shape) if dim != axis % len(shape))]
    return grouped.flatten(1)[:, : math.prod(moved[1:])].reshape(moved).movedim(0, axis)


def quantize(x: Tensor, scale, zero_point, quant_min, quant_max, midrise: bool | Tensor = False) -> Tensor:
    """Codes of `x`, int32: `clamp(round_half_even(x / scale) + zero_point)`, ONNX's QuantizeLinear to the bit.

    x: real, any shape. scale, zero_point: broadcast against `x`. On a mid-rise grid 1/2 is taken off before rounding.
    """
    return _clamp(_unclamped_codes(x, _scale_of(x, scale), zero_point, midrise), quant_min, quant_max).to(torch.int32)


def dequantize(codes: Tensor, scale, zero_point, midrise: bool | Tensor = False) -> Tensor:
    """Real values of integer `codes`: float32 `scale * (codes - zero_point)`, or `scale * (codes + 1/2)`."""
    steps = codes.to(torch.float32) - zero_point
    if midrise is not False:
        steps = steps + 0.5 * midrise
    return steps * _scale_of(codes, scale)


def round_ste(x: Tensor) -> Tensor:
    """`x` rounded half to even, with the gradient of the identity (straight-through estimator, arXiv:1308.3432)."""
    return x + (torch.round(x) - x).detach()


def fake_quantize(x: Tensor, scale, zero_point, quant_min, quant_max, midrise: bool | Tensor = False) -> Tensor:
    """Round `x` to the integer grid and return it in real units: `dequantize(quantize(x))`, to the bit.

    Gradient to `x`: 1 where the rounded code lies in the grid, 0 where it was clamped (straight-through,
    arXiv:1308.3432). None to `scale` and `zero_point`.
    """
    return _FakeQuantize.apply(x, _scale_of(x, scale), zero_point, quant_min, quant_max, midrise)


def fake_quantize_learned(
    x: Tensor, scale: Tensor, zero_point: Tensor, quant_min, quant_max, gradient_scale, midrise: bool | Tensor = False
) -> Tensor:
    """`fake_quantize` with gradients for the step size (LSQ, arXiv:1902.08153) and the offset (LSQ+, arXiv:2004.09576).

    scale, zero_point: float32, broadcast against `x`. The zero point in force is `zero_point` rounded and clamped to
    the grid, the scale in force at least `SCALE_FLOOR`; the gradient passes straight through both, so that a
    parameter that strayed can come back. With `code` the rounded and clamped code, the gradients per element are

        to x           1 inside the grid, 0 outside
        to scale       (code - zero_point) - x / scale inside, code - zero_point outside
        to zero_point  0 inside, -scale outside

    summed over the elements that share a scale, those of `scale` and `zero_point` times `gradient_scale`. Gradients
    that overflowed (the first steps of mixed precision) are dropped there, since one NaN would end a scale for good.
    """
    return _FakeQuantizeLearned.apply(x, scale, zero_point, quant_min, quant_max, gradient_scale, midrise)


def choose_qparams(minimum: Tensor, maximum: Tensor, spec: QuantSpec | Grid) -> tuple[Tensor, Tensor]:
    """The (scale, zero_point) whose grid spans minimum..maximum: float32 and int32, of the shape of `minimum`.

    The range is widened to include 0, so that zero (padding, relu) is exact on every grid but a mid-rise one. A range
    of nothing but zero gets `SCALE_FLOOR`.
    """
    low, high = minimum.float().clamp(max=0.0), maximum.float().clamp(min=0.0)
    if spec.symmetric:
        bound = torch.maximum(-low, high) if spec.signed else high
        scale = (bound / (spec.quant_max + 0.5 * spec.midrise)).clamp(min=SCALE_FLOOR)
        return scale, torch.zeros_like(scale, dtype=torch.int32)
    span = spec.quant_max - spec.quant_min
    # divide before subtracting: the difference of two finite bounds may overflow
    scale = (high / span - low / span).clamp(min=SCALE_FLOOR)
    zero_point = _clamp(spec.quant_min - torch.round(low / scale), spec.quant_min, spec.quant_max)
    return scale, zero_point.to(torch.int32)


def start_of_lsq(x: Tensor, quant_max, dim: int = -1) -> Tensor:
    """LSQ's own first step size, `2 * mean(|x|) / sqrt(quant_max)` along `dim` (arXiv:1902.08153, section 2.1)."""
    root = quant_max.sqrt() if isinstance(quant_max, Tensor) else math.sqrt(quant_max)
    return (2.0 * x.abs().mean(dim) / root).clamp(min=SCALE_FLOOR)


def signal_to_quantization_noise(x: Tensor, x_hat: Tensor) -> float:
    """Power of `x` over power of `x - x_hat`, in decibels; infinite where the two are equal."""
    noise = (x.double() - x_hat.double()).square().sum().item()
    signal = x.double().square().sum().item()
    if noise == 0.0:
        return math.inf
    return 10.0 * math.log10(signal / noise) if signal > 0.0 else -math.inf


def clip_share(x: Tensor, scale, zero_point, quant_min, quant_max, midrise: bool | Tensor = False) -> float:
    """Share of `x`, 0..1, whose rounded code lies outside the grid and is clamped."""
    codes = _unclamped_codes(x, _scale_of(x, scale), zero_point, midrise)
    return (codes != _clamp(codes, quant_min, quant_max)).double().mean().item()


@torch.library.custom_op("qat::fake_quantize", mutates_args=())
def fake_quantize_marker(x: Tensor, name: str) -> Tensor:
    """The identity: it stands for the quantizer `name` in an exported graph, as one node. Never run while training."""
    return x.clone()


@fake_quantize_marker.register_fake
def _(x: Tensor, name: str) -> Tensor:
    return torch.empty_like(x)


def _scale_of(x: Tensor, scale) -> Tensor:
    """`scale` as a float32 tensor beside `x`: dividing by a Python number multiplies by its reciprocal on a GPU."""
    return torch.as_tensor(scale, dtype=torch.float32, device=x.device)


def _unclamped_codes(x: Tensor, scale: Tensor, zero_point, midrise: bool | Tensor) -> Tensor:
    """Rounded codes before clamping, as float32. torch rounds half to even, as the runtimes do."""
    steps = x.to(torch.float32) / scale
    if midrise is not False:
        steps.sub_(0.5 * midrise)
    return steps.round_().add_(zero_point)


def _clamp(codes: Tensor, quant_min, quant_max) -> Tensor:
    return torch.clamp(codes, quant_min, quant_max)


class _FakeQuantize(torch.autograd.Function):
    """Keeps one byte per element for the backward pass."""

    @staticmethod
    def forward(ctx, x, scale, zero_point, quant_min, quant_max, midrise):
        rounded, inside = _round_to_grid(x, scale, zero_point, quant_min, quant_max, midrise)
        ctx.save_for_backward(inside)
        return rounded

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        (inside,) = ctx.saved_tensors
        return gradient * inside, None, None, None, None, None


class _FakeQuantizeLearned(torch.autograd.Function):
    """Keeps input and output, which the operations before and after keep anyway, and one byte per element."""

    @staticmethod
    def forward(ctx, x, scale, zero_point, quant_min, quant_max, gradient_scale, midrise):
        positive = scale.clamp(min=SCALE_FLOOR)
        point = _clamp(torch.round(zero_point), quant_min, quant_max)
        rounded, inside = _round_to_grid(x, positive, point, quant_min, quant_max, midrise)
        gradient_scale = torch.as_tensor(gradient_scale, dtype=torch.float32, device=x.device)
        ctx.save_for_backward(x, rounded, inside, positive, point, gradient_scale)
        return rounded

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        x, rounded, inside, scale, point, gradient_scale = ctx.saved_tensors
        to_x = gradient * inside
        to_scale = to_zero_point = None
        if ctx.needs_input_grad[1]:
            # code - zero_point is rounded / scale, so both cases of the gradient are an error over the scale
            error = torch.where(inside, rounded - x, rounded)
            to_scale = finite_gradient((error * gradient).sum_to_size(scale.shape) / scale * gradient_scale)
        if ctx.needs_input_grad[2]:
            to_zero_point = finite_gradient(((to_x - gradient) * scale).sum_to_size(point.shape) * gradient_scale)
        return to_x, to_scale, to_zero_point, None, None, None, None


def _round_to_grid(x, scale, zero_point, quant_min, quant_max, midrise) -> tuple[Tensor, Tensor]:
    """`x` rounded to the grid in real units, and where its code was not clamped."""
    unclamped = _unclamped_codes(x, scale, zero_point, midrise)
    codes = _clamp(unclamped, quant_min, quant_max)
    inside = codes == unclamped
    codes.sub_(zero_point)
    if midrise is not False:
        codes.add_(0.5 * midrise)
    return codes.mul_(scale), inside


def finite_gradient(gradient: Tensor) -> Tensor:
    """`gradient` with NaN and infinity replaced by 0."""
    return torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)
