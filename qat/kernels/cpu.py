"""Activations on a CPU: few passes over memory, all vectorized, into one new tensor.

With `low = quant_min - zero_point` and `high = quant_max - zero_point` the grid is `scale * clamp(round(x / scale),
low, high)`: no pass for the zero point, and the same float32 values as `qat.functional`, since small integers add
exactly. Backward reads `x` itself, which the operation before keeps anyway, instead of a mask; the gradient differs
from `qat.functional`'s only on the border of the outermost half steps. torch's own kernels convert each value to
int64 and back, and take two to four times as long.
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from qat.functional import SCALE_FLOOR, finite_gradient


def fake_quantize(x: Tensor, scale: Tensor, zero_point: Tensor, quant_min: int, quant_max: int) -> Tensor:
    """`functional.fake_quantize` with one scale for all of `x`."""
    point = zero_point.item()
    return _FakeQuantize.apply(x, scale.item(), quant_min - point, quant_max - point)


def fake_quantize_learned(
    x: Tensor, scale: Tensor, zero_point: Tensor, quant_min: int, quant_max: int, gradient_scale: float
) -> Tensor:
    """`functional.fake_quantize_learned` with one scale for all of `x`; float32 sums in another order."""
    if x.ndim == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last):
        last = x.permute(0, 2, 3, 1)
        rounded = _FakeQuantizeLearned.apply(last, scale, zero_point, quant_min, quant_max, gradient_scale)
        return rounded.permute(0, 3, 1, 2)
    return _FakeQuantizeLearned.apply(x.contiguous(), scale, zero_point, quant_min, quant_max, gradient_scale)


def _round_to_grid(x: Tensor, scale: float, low: float, high: float) -> Tensor:
    return x.div(scale).round_().clamp_(low, high).mul_(scale)


def _straight_through(gradient: Tensor, x: Tensor, scale: float, low: float, high: float) -> Tensor:
    """`gradient` where the code of `x` was not clamped, else 0, in one pass."""
    return torch.ops.aten.hardtanh_backward(gradient, x, (low - 0.5) * scale, (high + 0.5) * scale)


class _FakeQuantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, scale, low, high):
        ctx.grid = (scale, low, high)
        ctx.save_for_backward(x)
        return _round_to_grid(x, scale, low, high)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return _straight_through(gradient, x, *ctx.grid), None, None, None


class _FakeQuantizeLearned(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, scale, zero_point, quant_min, quant_max, gradient_scale):
        step = max(scale.item(), SCALE_FLOOR)
        point = min(max(round(zero_point.item()), quant_min), quant_max)
        ctx.grid = (step, quant_min - point, quant_max - point)
        ctx.gradient_scale = gradient_scale
        rounded = _round_to_grid(x, *ctx.grid)
        ctx.save_for_backward(x, rounded)
        return rounded

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        x, rounded = ctx.saved_tensors
        gradient = gradient.contiguous()
        to_x = _straight_through(gradient, x, *ctx.grid)
        to_scale = to_zero_point = None
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
            clamped = gradient - to_x  # the gradient where the code was clamped, else 0
            if ctx.needs_input_grad[2]:
                to_zero_point = finite_gradient(clamped.sum() * (-ctx.grid[0] * ctx.gradient_scale))
            outside = torch.dot(clamped.view(-1), rounded.view(-1))
            error = torch.sub(rounded, x, out=clamped)
            inside = torch.dot(to_x.view(-1), error.view(-1))
            to_scale = finite_gradient((inside + outside) * (ctx.gradient_scale / ctx.grid[0]))
        return to_x, to_scale, to_zero_point, None, None, None
