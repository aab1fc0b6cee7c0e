"""Learned fake quantizers."""

import copy
import math

import pytest
import torch

from qat import functional
from qat.errors import ObservationError
from qat.functional import SCALE_FLOOR
from qat.quantizers import make_fake_quantize
from qat.range_search import choose_scale_mse
from qat.spec import ACTIVATION, WEIGHT, QuantSpec

WEIGHTS = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))


def weight_quantizer(bits=4):
    return make_fake_quantize(WEIGHT.with_bits(bits), name="w", role="weight", shape=(2, 8), axis=0)


def activation_quantizer(**changes):
    return make_fake_quantize(ACTIVATION.with_bits(4), name="a", role="activation", **changes)


def test_the_start_is_used_at_once_and_written_by_commit():
    quantizer = weight_quantizer()
    expected, _ = choose_scale_mse(WEIGHTS, quantizer.spec, axis=0)
    first = quantizer(WEIGHTS)
    assert quantizer.scale.tolist() == [0.0, 0.0]  # the change from the start, not written in forward
    assert torch.equal(quantizer.qparams().scale, expected)
    quantizer.commit()
    assert torch.equal(quantizer.scale, expected)
    assert torch.equal(quantizer(WEIGHTS), first)


def test_two_uses_before_commit_share_the_start_and_both_give_gradients():
    quantizer = activation_quantizer(nonnegative=True)
    x = torch.tensor([15.0, 7.2, 3.4])
    first = quantizer(x)
    second = quantizer(100 * x)  # clamped: the start does not move
    assert quantizer.qparams().scale.item() == pytest.approx(1.0, abs=0.1)
    (first.sum() + second.sum()).backward()
    quantizer.commit()
    step = quantizer.scale.item()
    to_first = sum(round(v / step) - v / step for v in (15.0, 7.2, 3.4))
    assert quantizer.scale.grad.item() == pytest.approx((to_first + 3 * 15) / math.sqrt(1 * 15), rel=1e-4)


def test_training_before_a_late_commit_is_not_lost():
    early, late = weight_quantizer(), weight_quantizer()
    for quantizer in (early, late):
        quantizer(WEIGHTS)
    early.commit()
    for quantizer in (early, late):
        with torch.no_grad():
            quantizer.scale.add_(0.125)
    late.commit()
    assert torch.equal(early.scale, late.scale)


def test_the_gradient_scale_of_a_weight():
    quantizer = make_fake_quantize(WEIGHT.with_bits(4), name="w", role="weight", shape=(1, 4), axis=0)
    quantizer(torch.tensor([[7.0, -7.0, 3.0, 5.0]]))
    quantizer.commit()
    assert quantizer.scale.item() == 1.0
    quantizer(torch.tensor([[9.0, 0.25, 0.0, 0.0]])).sum().backward()
    assert quantizer.scale.grad.item() == pytest.approx((7 - 0.25) / math.sqrt(4 * 7))


def test_the_gradient_scale_of_an_activation_counts_one_example():
    quantizer = activation_quantizer(nonnegative=True)
    quantizer.set_state(observe=False, fake_quantize=True)
    quantizer(torch.arange(16.0).view(4, 4))
    quantizer.commit()
    assert quantizer.scale.item() == 1.0
    quantizer(torch.tensor([[99.0] * 5] * 3)).sum().backward()
    assert quantizer.scale.grad.item() == pytest.approx(15 * 15 / math.sqrt(5 * 15))


def test_an_affine_activation_learns_its_zero_point():
    quantizer = activation_quantizer()
    quantizer.set_state(observe=False, fake_quantize=True)
    quantizer(torch.arange(-3.0, 13.0).view(1, -1))
    quantizer.commit()
    assert [parameter.item() for parameter in quantizer.learned_parameters()] == [1.0, 3.0]
    quantizer(torch.tensor([[-9.0, 2.0, 99.0, 99.0]])).sum().backward()
    assert quantizer.zero_point.grad.item() == pytest.approx(-3 / math.sqrt(4 * 15))
    with torch.no_grad():
        quantizer.zero_point.fill_(2.6)
    assert quantizer.qparams().zero_point.item() == 3


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_eval_equals_quantize_and_dequantize(bits):
    quantizer = weight_quantizer(bits)
    quantizer(WEIGHTS)
    quantizer.commit()
    quantizer.eval()
    grid = quantizer.qparams()
    scale = grid.scale.view(2, 1)
    codes = functional.quantize(WEIGHTS, scale, 0, grid.quant_min, grid.quant_max, grid.midrise)
    assert torch.equal(quantizer(WEIGHTS), functional.dequantize(codes, scale, 0, grid.midrise))
    assert grid.midrise == (bits == 2)


def test_eval_before_training_passes_values():
    quantizer = weight_quantizer().eval()
    assert torch.equal(quantizer(WEIGHTS), WEIGHTS)
    with pytest.raises(ObservationError, match="w has no scale yet"):
        quantizer.qparams()


def test_the_start_comes_from_what_was_observed_before():
    quantizer = activation_quantizer(nonnegative=True)
    quantizer.set_state(observe=True, fake_quantize=False)
    for _ in range(3):
        quantizer(torch.linspace(0, 15, 3000))
    quantizer.set_state(observe=False, fake_quantize=True)
    quantizer(torch.tensor([0.0, 0.1]))
    assert quantizer.qparams().scale.item() == pytest.approx(1.0, rel=0.1)


def test_widths_choose_the_scale_anew():
    quantizer = weight_quantizer(2)
    quantizer.set_bits(8)
    quantizer(WEIGHTS)
    quantizer.commit()
    noise = {}
    for bits in (8, 6, 4, 3, 2):
        quantizer.set_bits(bits, WEIGHTS)
        expected, _ = choose_scale_mse(WEIGHTS, quantizer.spec.with_bits(bits), axis=0)
        if bits < 8:
            assert torch.equal(quantizer.qparams().scale, expected)
        noise[bits] = (quantizer(WEIGHTS) - WEIGHTS).square().mean().item()
    assert noise[8] < noise[6] < noise[4] < noise[3] < noise[2] < 0.2 * WEIGHTS.square().mean()


def test_an_activation_changes_width_by_its_statistics():
    quantizer = activation_quantizer(nonnegative=True)
    quantizer.set_bits(8)
    x = torch.rand(4000, generator=torch.Generator().manual_seed(0))
    quantizer(x)
    quantizer.commit()
    quantizer.set_bits(4)
    assert quantizer.qparams().scale.item() == pytest.approx(1 / 15, rel=0.05)


def test_frozen_scales_get_no_gradient():
    quantizer = weight_quantizer()
    weight = WEIGHTS.clone().requires_grad_()
    quantizer(weight)
    quantizer.commit()
    quantizer.freeze_scales = True
    quantizer(weight).sum().backward()
    assert quantizer.scale.grad is None
    assert weight.grad is not None
    assert quantizer.freeze_scales


def test_a_scale_below_zero_is_held_at_the_floor():
    quantizer = weight_quantizer()
    quantizer(WEIGHTS)
    quantizer.commit()
    with torch.no_grad():
        quantizer.scale.fill_(-0.5)
    assert quantizer.qparams().scale.tolist() == [SCALE_FLOOR, SCALE_FLOOR]
    quantizer(WEIGHTS).sum().backward()
    assert torch.isfinite(quantizer.scale.grad).all()


def test_nan_at_the_start_is_refused():
    with pytest.raises(ObservationError, match="w holds NaN or infinity when its step size is first chosen"):
        weight_quantizer()(torch.full((2, 8), math.nan))
    with pytest.raises(ObservationError, match="the weight w is empty"):
        weight_quantizer()(torch.zeros(2, 0))


def test_state_dict_round_trip_between_forward_and_commit():
    quantizer = weight_quantizer()
    quantizer(WEIGHTS)
    other = weight_quantizer()
    other.load_state_dict(copy.deepcopy(quantizer.state_dict()))
    for one in (quantizer, other):
        one.commit()
    assert torch.equal(quantizer.scale, other.scale)
    assert torch.equal(quantizer(WEIGHTS), other(WEIGHTS))


def test_per_group():
    spec = QuantSpec(bits=4, granularity="per_group", group_size=4)
    quantizer = make_fake_quantize(spec, name="w", role="weight", shape=(2, 8), axis=0)
    weight = WEIGHTS.clone().requires_grad_()
    quantizer(weight).sum().backward()
    quantizer.commit()
    assert quantizer.qparams().scale.shape == quantizer.scale.grad.shape == (2, 2)
    alone = make_fake_quantize(WEIGHT.with_bits(4), name="v", role="weight", shape=(2, 4), axis=0)
    assert torch.equal(alone(WEIGHTS[:, 4:]), quantizer(WEIGHTS)[:, 4:])


def test_a_start_on_nothing_but_zeros_is_chosen_again():
    quantizer = make_fake_quantize(QuantSpec(bits=4), name="branch", role="weight")
    quantizer(torch.zeros(8))
    quantizer.commit()
    assert quantizer.ready and float(quantizer.qparams().scale) == SCALE_FLOOR
    quantizer(torch.linspace(-0.7, 0.7, 15))
    quantizer.commit()
    assert 0.05 < float(quantizer.scale.detach()) < 0.15


def test_a_start_on_the_weight_is_the_one_of_the_first_forward():
    torch.manual_seed(0)
    weight = torch.randn(4, 6)
    spec = QuantSpec(bits=4, granularity="per_channel")
    one, other = (make_fake_quantize(spec, name="w", role="weight", shape=(4, 6), axis=0) for _ in range(2))
    one.start_on(weight)
    other(weight)
    assert one.ready and torch.equal(one.scale, other.scale_in_force())


@pytest.mark.parametrize("weight", [torch.zeros(4, 6), torch.full((4, 6), torch.nan), None])
def test_a_start_on_nothing_is_left_to_the_first_forward(weight):
    spec = QuantSpec(bits=4, granularity="per_channel")
    quantizer = make_fake_quantize(spec, name="w", role="weight", shape=(4, 6), axis=0)
    quantizer.start_on(weight)
    assert not quantizer.ready
