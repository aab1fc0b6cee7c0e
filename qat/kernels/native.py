"""torch's fused kernel, one pass each way, for devices where launching many small kernels costs most (GPUs).

It multiplies by the reciprocal of the scale where `qat.functional` divides, so a value within a rounding error of a
tie may land on the neighbouring code: harmless noise in training, not allowed in evaluation.
"""

import torch
from torch import Tensor


def fake_quantize(x: Tensor, scale: Tensor, zero_point: Tensor, quant_min: int, quant_max: int) -> Tensor:
    """`functional.fake_quantize` with one scale for all of `x`; does not wait for the device."""
    return torch.fake_quantize_per_tensor_affine(x, scale, zero_point, quant_min, quant_max)
