"""The same functions as `qat.functional` for one training step in eager mode, chosen by device and layout.

`fake_quantize` and `fake_quantize_learned` take scale and zero point of shape () or, along `axis`, (C,). Evaluation
and compiled code use `qat.functional` itself. Microseconds of one forward and backward with two CPU threads, from
`python tests/benchmarks/bench_kernels.py`:

                                observed                        learned
                                here   functional   torch's     here   functional   torch's
    x   (128, 16, 32, 32)       3615         6655      6984     4298        12798     12305
    x   (128, 32, 16, 16)        869         3121      2578     2531         4979      4532
    x   (128, 64, 8, 8)          599         1157      1367     1073         1965      2157
    w   (16, 16, 3, 3)            66           55        37      104           95        57
    w   (64, 64, 3, 3)           125          119       144      232          219       216

so activations have kernels of their own, and weights, where torch's operators save next to nothing and round
differently, are left to `qat.functional`.
"""

from torch import Tensor

from qat import functional
from qat.kernels import cpu, native

__all__ = ["fake_quantize", "fake_quantize_learned"]


def fake_quantize(
    x: Tensor, scale: Tensor, zero_point: Tensor, quant_min: int, quant_max: int, midrise: bool, axis: int | None
) -> Tensor:
    """`functional.fake_quantize`. zero_point: int32."""
    if axis is None and not midrise:
        kernel = cpu.fake_quantize if x.device.type == "cpu" else native.fake_quantize
        return kernel(x, scale, zero_point, quant_min, quant_max)
    scale, zero_point = (functional.along_axis(values, x.ndim, axis) for values in (scale, zero_point))
    return functional.fake_quantize(x, scale, zero_point, quant_min, quant_max, midrise)


def fake_quantize_learned(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    quant_min: int,
    quant_max: int,
    gradient_scale: float,
    midrise: bool,
    axis: int | None,
) -> Tensor:
    """`functional.fake_quantize_learned`. zero_point: float32."""
    if axis is None and not midrise and x.device.type == "cpu":
        return cpu.fake_quantize_learned(x, scale, zero_point, quant_min, quant_max, gradient_scale)
    scale, zero_point = (functional.along_axis(values, x.ndim, axis) for values in (scale, zero_point))
    return functional.fake_quantize_learned(x, scale, zero_point, quant_min, quant_max, gradient_scale, midrise)
