"""Interpolation, pools over any windows and running sums give the same codes in all three ways to run them."""

import pytest
import torch.nn.functional as F

BODIES = {
    "adaptive_avg_pool": (lambda net, x: F.adaptive_avg_pool2d(x, (3, 5)), 120),
    "adaptive_avg_pool_to_more": (lambda net, x: F.adaptive_avg_pool2d(x, (11, 8)), 704),
    "adaptive_avg_pool_of_one_dimension": (lambda net, x: F.adaptive_avg_pool1d(x[:, :, 0], 3), 24),
    "adaptive_max_pool": (lambda net, x: F.adaptive_max_pool2d(x, (3, 5)), 120),
    "pool_without_padding": (lambda net, x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False), 128),
    "pool_that_overhangs": (lambda net, x: F.avg_pool2d(x, 3, 2, ceil_mode=True), 128),
    "pool_with_a_divisor": (lambda net, x: F.avg_pool2d(x, 2, divisor_override=3), 128),
    "pool_and_relu": (lambda net, x: F.relu(F.avg_pool2d(x - 0.5, 3, 1, 1, count_include_pad=False)), 512),
    "bilinear": (lambda net, x: F.interpolate(x, scale_factor=2, mode="bilinear"), 2048),
    "bilinear_by_a_fraction": (lambda net, x: F.interpolate(x, scale_factor=(1.5, 2.3), mode="bilinear"), 8 * 12 * 18),
    "bilinear_with_corners": (lambda net, x: F.interpolate(x, size=(11, 5), mode="bilinear", align_corners=True), 440),
    "bilinear_antialiased": (lambda net, x: F.interpolate(x, size=(11, 5), mode="bilinear", antialias=True), 440),
    "bicubic": (lambda net, x: F.interpolate(x, size=(11, 5), mode="bicubic"), 440),
    "linear": (lambda net, x: F.interpolate(x[:, :, 0], size=11, mode="linear"), 88),
    "area": (lambda net, x: F.interpolate(x, size=(11, 5), mode="area"), 440),
    "area_of_even_windows": (lambda net, x: F.interpolate(x, scale_factor=0.5, mode="area"), 128),
    "area_of_the_same_size": (lambda net, x: F.interpolate(x, size=(8, 8), mode="area"), 512),
    "area_of_one_even_dimension": (lambda net, x: F.interpolate(x[:, :, 0], size=2, mode="area"), 16),
    "area_of_even_boxes": (lambda net, x: F.interpolate(x[:, :, None], size=(1, 4, 2), mode="area"), 64),
    "trilinear": (lambda net, x: F.interpolate(x[:, :, None], size=(2, 3, 4), mode="trilinear"), 192),
    "to_the_same_size": (lambda net, x: F.interpolate(x, size=(8, 8), mode="bilinear"), 512),
    "cumsum": (lambda net, x: x.cumsum(2), 512),
    "cumsum_of_the_last": (lambda net, x: x.cumsum(-1), 512),
    "sum": (lambda net, x: x.sum((1, 3), keepdim=True) * 0.1, 8),
}  # fmt: skip


@pytest.mark.parametrize("quant", ["w8a8", "w3a5"])
@pytest.mark.parametrize("name", BODIES)
def test_what_resamples_lowers_to_the_same_codes(name, quant, assert_agreement):
    body, features = BODIES[name]
    assert_agreement(body, features, {}, quant)
