import pytest
import torch.nn.functional as F

import qat
from qat.errors import ConversionError

BODIES = {
    "max_pool": (lambda net, x: F.max_pool2d(x, 3, 2, 1), 8 * 16, {}),
    "max_pool_ceil": (lambda net, x: F.max_pool2d(x, 3, 2, ceil_mode=True), 8 * 16, {}),
    "max_pool1d": (lambda net, x: F.max_pool1d(x.flatten(2), 4), 8 * 16, {}),
    "max_pool_window_larger_than_input": (lambda net, x: F.max_pool2d(x[..., :2, :2], 3, 2, ceil_mode=True), 8, {}),
    "max_pool_far_overhang": (lambda net, x: F.max_pool2d(x[..., :6, :6], 2, 3, dilation=3, ceil_mode=True), 8 * 4, {}),
    "max_pool_whose_indices_nobody_reads": (lambda net, x: F.max_pool2d(x, 2, return_indices=True)[0], 8 * 16, {}),
    "avg_pool": (lambda net, x: F.avg_pool2d(x, 3, 2, 1), 8 * 16, {}),
    "avg_pool1d": (lambda net, x: F.avg_pool1d(x.flatten(2), 4), 8 * 16, {}),
    "adaptive_avg_pool": (lambda net, x: F.adaptive_avg_pool2d(x, 2), 8 * 4, {}),
    "adaptive_avg_pool_one": (lambda net, x: F.adaptive_avg_pool2d(x, 1), 8, {}),
    "adaptive_max_pool": (lambda net, x: F.adaptive_max_pool2d(x, (2, None)), 8 * 16, {}),
    "adaptive_max_pool_one": (lambda net, x: F.adaptive_max_pool2d(x, 1), 8, {}),
    "adaptive_max_pool1d": (lambda net, x: F.adaptive_max_pool1d(x.flatten(2), 16), 8 * 16, {}),
    "max_pool3d": (lambda net, x: F.max_pool3d(x.unflatten(3, (4, 2)), 2, 1, 1), 8 * 9 * 15, {}),
    "avg_pool3d": (lambda net, x: F.avg_pool3d(x.unflatten(3, (4, 2)), (2, 2, 1), 2, (1, 0, 0)), 8 * 10, {}),
    "adaptive_avg_pool3d": (lambda net, x: F.adaptive_avg_pool3d(x.unflatten(3, (4, 2)), (4, 2, 1)), 8 * 8, {}),
    "adaptive_avg_pool3d_one": (lambda net, x: F.adaptive_avg_pool3d(x.unflatten(3, (4, 2)), 1), 8, {}),
    "adaptive_max_pool3d": (lambda net, x: F.adaptive_max_pool3d(x.unflatten(3, (4, 2)), (2, 1, 2)), 8 * 4, {}),
    "mean": (lambda net, x: x.mean((2, 3)), 8, {}),
    "mean_channels": (lambda net, x: x.mean(1, keepdim=True), 64, {}),
    "amax": (lambda net, x: x.amax((2, 3)), 8, {}),
}  # fmt: skip


@pytest.mark.parametrize("quant", ["w8a8", "w3a5"])
@pytest.mark.parametrize("name", BODIES)
def test_pools_and_reductions_lower_to_the_same_codes(name, quant, assert_agreement):
    assert_agreement(*BODIES[name], quant)


@pytest.mark.parametrize(
    ("pool", "message"),
    [
        (lambda x: sum(F.max_pool2d(x, 2, return_indices=True)), "return_indices=True .* use return_indices=False"),
        (lambda x: sum(F.adaptive_max_pool2d(x, 2, return_indices=True)), "return_indices=True gives positions"),
    ],
)
def test_pools_without_an_integer_form_are_refused_with_the_remedy(pool, message, trained_network):
    network, _ = trained_network(lambda net, x: pool(x).mean((2, 3)), 8, {}, target=None)
    with pytest.raises(ConversionError, match=message):
        qat.convert(network)
