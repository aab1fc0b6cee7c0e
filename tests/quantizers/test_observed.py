"""Observed fake quantizers."""

import math

import pytest
import torch

from qat import functional
from qat.errors import ObservationError
from qat.quantizers import make_fake_quantize
from qat.spec import ACTIVATION, WEIGHT, QuantSpec


def activation(**changes):
    return make_fake_quantize(ACTIVATION, name="relu", role="activation", **changes)


def test_an_activation_follows_its_moving_average():
    quantizer = activation()
    assert quantizer(torch.tensor([-1.0, 254.0])).tolist() == [-1.0, 254.0]
    grid = quantizer.qparams()
    assert (grid.scale.item(), grid.zero_point.item(), grid.quant_min, grid.quant_max) == (1.0, 1, 0, 255)
    quantizer(torch.tensor([-1.0, 764.0]))  # mean of 254 and 764
    assert quantizer.qparams().scale.item() == pytest.approx(2.0, rel=1e-6)


def test_a_nonnegative_activation_has_zero_point_zero():
    quantizer = activation(nonnegative=True)
    quantizer(torch.tensor([0.0, 255.0]))
    assert quantizer.spec == QuantSpec(signed=False, symmetric=True)
    assert quantizer.qparams().zero_point.item() == 0


@pytest.mark.parametrize(("bits", "signed", "highest"), [(8, True, 127), (7, False, 127), (4, False, 15)])
def test_a_nonnegative_activation_of_a_symmetric_grid_takes_what_int8_holds(bits, signed, highest):
    spec = QuantSpec(bits=bits, method="observed")
    quantizer = make_fake_quantize(spec, name="relu", role="activation", nonnegative=True)
    assert (quantizer.spec.signed, quantizer.spec.symmetric, quantizer.spec.quant_max) == (signed, True, highest)


def test_a_weight_is_observed_as_it_is_now():
    quantizer = make_fake_quantize(WEIGHT, name="w", role="weight", shape=(2, 2), axis=0)
    quantizer(torch.tensor([[127.0, 1.0], [-254.0, 1.0]]))
    assert quantizer.qparams().scale.tolist() == [1.0, 2.0]
    quantizer(torch.tensor([[63.5, 1.0], [0.0, 0.0]]))
    assert quantizer.qparams().scale.tolist() == [0.5, functional.SCALE_FLOOR]


def test_weight_used_twice_in_one_graph():
    quantizer = make_fake_quantize(WEIGHT, name="w", role="weight", shape=(1, 2), axis=0)
    weight = torch.tensor([[1.0, -2.0]], requires_grad=True)
    (quantizer(weight) + quantizer(weight * 2)).sum().backward()
    assert weight.grad.tolist() == [[3.0, 3.0]]


def test_eval_uses_the_same_codes_as_quantize():
    quantizer = activation()
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    quantizer(x)
    quantizer.eval()
    grid = quantizer.qparams()
    arguments = (grid.scale, grid.zero_point, grid.quant_min, grid.quant_max)
    expected = functional.dequantize(functional.quantize(3 * x, *arguments), grid.scale, grid.zero_point)
    assert torch.equal(quantizer(3 * x), expected)
    assert torch.equal(quantizer.qparams().scale, grid.scale)  # nothing is observed in eval mode


def test_without_data_values_pass_and_there_is_no_grid():
    quantizer = activation().eval()
    assert quantizer(torch.tensor([0.3])).item() == torch.tensor(0.3).item()
    with pytest.raises(ObservationError, match="relu has no scale yet, since it met no data"):
        quantizer.qparams()


def test_nan_raises_and_keeps_the_scale():
    quantizer = activation()
    quantizer(torch.tensor([0.0, 255.0]))
    with pytest.raises(ObservationError, match="relu met 1 NaN and 0 infinite of 2 values"):
        quantizer(torch.tensor([math.nan, 1.0]))
    assert quantizer.qparams().scale.item() == 1.0


def test_an_empty_batch_is_refused_only_while_observing():
    quantizer = activation()
    quantizer(torch.ones(3))
    with pytest.raises(ObservationError, match="empty batch"):
        quantizer(torch.ones(0, 3))
    quantizer.set_state(observe=False, fake_quantize=True)
    assert quantizer(torch.ones(0, 3)).shape == (0, 3)


def test_recomputation_in_backward_observes_nothing():
    quantizer = activation()
    x = torch.tensor([0.0, 10.0], requires_grad=True)
    torch.utils.checkpoint.checkpoint(lambda v: quantizer(v) * v, x, use_reentrant=False).sum().backward()
    assert quantizer.observer.batches.item() == 1


def test_change_of_width_takes_the_scale_from_statistics():
    quantizer = make_fake_quantize(
        QuantSpec(bits=4, signed=False, symmetric=False, method="observed"), name="a", role="activation"
    )
    quantizer.set_bits(8)
    quantizer(torch.tensor([0.0, 255.0]))
    quantizer.set_state(observe=False, fake_quantize=True)
    quantizer.set_bits(4)
    assert quantizer.qparams().scale.item() == 17.0
    assert quantizer.qparams().quant_max == 15
    assert quantizer(torch.tensor([40.0])).item() == 34.0


def test_refresh_after_the_statistics_were_changed_from_outside():
    quantizer = activation()
    quantizer(torch.tensor([0.0, 255.0]))
    quantizer.observer.maximum.fill_(510.0)
    quantizer.refresh()
    assert quantizer.qparams().scale.item() == 2.0


@pytest.mark.parametrize("observer", ["minmax", "moving_average", "percentile", "mse", "histogram"])
def test_every_observer_works_per_channel(observer):
    spec = QuantSpec(bits=8, granularity="per_channel", observer=observer)
    quantizer = make_fake_quantize(spec, name="w", role="weight", shape=(3, 4), axis=0)
    weight = torch.linspace(-1, 1, 12).view(3, 4)
    assert (quantizer(weight) - weight).abs().max() < 0.02


def test_per_group_gradients_and_values():
    spec = QuantSpec(bits=8, granularity="per_group", group_size=2)
    quantizer = make_fake_quantize(spec, name="w", role="weight", shape=(1, 4), axis=0)
    weight = torch.tensor([[127.0, 0.6, 12.7, 0.04]], requires_grad=True)
    rounded = quantizer(weight)
    rounded.sum().backward()
    assert rounded[0].tolist() == pytest.approx([127.0, 1.0, 12.7, 0.0])
    assert weight.grad.tolist() == [[1.0, 1.0, 1.0, 1.0]]
    assert quantizer.qparams().scale.shape == (1, 2)


def test_the_percentile_of_a_spec_is_that_of_its_range():
    spec = QuantSpec(observer="percentile", percentile=90.0, method="observed")
    quantizer = make_fake_quantize(spec, name="a", role="activation")
    quantizer(torch.linspace(-1, 1, 16_000))
    assert float(quantizer.qparams().scale) * 127 == pytest.approx(0.8, abs=1 / 64)
