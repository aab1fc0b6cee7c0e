"""Batch norm folded into the layer before it: the same float32 arithmetic while training and when lowering.

With codes `q` of the input (step sx) and integers `w` of the weight (step sw, per output channel), a convolution
followed by batch norm is `sx * sw * m * sum(q w) + shift` with `m = gamma / sqrt(var + eps)`. The weight integers stay
as they are: |m| goes into the channel's step, a negative sign flips the integers (their range is symmetric), and the
shift becomes an int32 bias of step `sx * sw * |m|` (arXiv:1712.05877, section 3.2, without refolding the weights).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from qat.functional import SCALE_FLOOR
from qat.spec import QuantSpec

#: Weights run in int8 kernels, whatever their width: their codes are scaled up to use the int8 range, and the step of
#: the bias shrinks by as much.
KERNEL_BITS = 8

#: Widest weights that a kernel may take as they are stored, several in a byte.
NARROW_KERNEL_BITS = 4

#: Largest bias that leaves half of int32 to the products of weights and activations.
BIAS_LIMIT = 2**30


@dataclass(frozen=True)
class KernelWeight:
    """How a code becomes the integer that a kernel multiplies with: `code * step + offset`."""

    step: int
    offset: int

    @classmethod
    def of(cls, spec: QuantSpec, narrow: bool = False) -> "KernelWeight":
        """For weights of `spec`, up to 8 bits. A mid-rise code q is q + 1/2: its integer is (2 q + 1) / 2 steps.

        narrow: for a kernel that takes `NARROW_KERNEL_BITS` and fewer as they are, not scaled up.
        """
        step = 2 ** (KERNEL_BITS - min(spec.bits, KERNEL_BITS))
        kernel = cls(step, step // 2 if spec.midrise else 0)
        return kernel.narrowed() if narrow and spec.bits <= NARROW_KERNEL_BITS else kernel

    def narrowed(self) -> "KernelWeight":
        """With the smallest integers of the same ratios."""
        unit = math.gcd(self.step, self.offset)
        return KernelWeight(self.step // unit, self.offset // unit)


@dataclass(frozen=True)
class BatchNorm:
    """The constants of one batch norm, each of shape (C,)."""

    mean: Tensor
    variance: Tensor
    weight: Tensor | None
    bias: Tensor | None
    eps: float

    def affine(self, layer_bias: Tensor | None) -> tuple[Tensor, Tensor]:
        """(multiplier, shift): batch norm of `y + layer_bias` is `multiplier * y + shift`, in float32.

        The root is taken in float64, since devices round that of float32 differently, and training on one of them is
        lowered on another.
        """
        multiplier = torch.rsqrt(self.variance.double() + self.eps).float()
        if self.weight is not None:
            multiplier = multiplier * self.weight.float()
        centre = self.mean.float() if layer_bias is None else self.mean.float() - layer_bias.float()
        shift = -centre * multiplier
        return multiplier, shift if self.bias is None else shift + self.bias.float()


def fold_scale(input_scale: Tensor, kernel_scale: Tensor, multiplier: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """(scale of the kernel's integers after folding, channels that are dead), each (C,).

    input_scale: (). kernel_scale: real units per unit of the kernel's integers, (C,) or (). multiplier, shift: (C,), of
    the batch norm. A channel is dead where |multiplier| is so small that the shift, in units of the accumulator, would
    leave int32: its weights then add nothing that its output could show, so they count as zero, and the scale is chosen
    to hold the shift.
    """
    folded = (kernel_scale * multiplier.abs()).clamp(min=SCALE_FLOOR)
    dead = shift.abs() > input_scale * folded * BIAS_LIMIT
    return torch.where(dead, (shift.abs() / 2**20 / input_scale).clamp(min=SCALE_FLOOR), folded), dead


def bias_codes(bias: Tensor, step: Tensor) -> Tensor:
    """The bias in units of the accumulator, rounded half to even; float32 that holds integers, (C,)."""
    return torch.round(bias / step).clamp(-BIAS_LIMIT, BIAS_LIMIT)


def fake_quantize_bias(bias: Tensor, step: Tensor) -> Tensor:
    """`bias` rounded to the accumulator's grid, with the gradient of the identity. step is taken as a constant."""
    step = step.detach()
    return bias + (bias_codes(bias, step) * step - bias).detach()
