"""What observers remember, against numbers written out by hand."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qat.errors import ObservationError
from qat.functional import fake_quantize
from qat.observers import (
    BINS,
    OBSERVERS,
    HistogramObserver,
    MinMaxObserver,
    MovingAverageObserver,
    MSEObserver,
    PercentileObserver,
)
from qat.spec import QuantSpec

AFFINE = QuantSpec(bits=8, signed=False, symmetric=False)


def test_minmax_keeps_the_extremes():
    observer = MinMaxObserver("x")
    assert not observer.has_observed
    for batch in ([2.0, 3.0], [-1.0, 2.5], [0.0, 0.0]):
        observer.observe(torch.tensor(batch))
    assert (observer.minimum.item(), observer.maximum.item()) == (-1.0, 3.0)
    assert observer.has_observed


def test_moving_average_is_a_mean_at_first_and_then_forgets():
    observer = MovingAverageObserver("x", momentum=0.25)
    for batch, expected in (
        ([0.0, 4.0], 4.0),
        ([0.0, 8.0], 6.0),
        ([-3.0, 0.0], 4.0),
        ([0.0, 8.0], 5.0),
        ([0.0, 9.0], 6.0),
    ):
        observer.observe(torch.tensor(batch))
        assert observer.maximum.item() == pytest.approx(expected, rel=1e-6)  # weights 1, 1/2, 1/3, 1/4, 1/4


def test_momentum_one_keeps_the_last_batch():
    observer = MovingAverageObserver("x", momentum=1.0)
    for batch in ([-5.0, 4.0], [-1.0, 2.0]):
        observer.observe(torch.tensor(batch))
    assert (observer.minimum.item(), observer.maximum.item()) == (-1.0, 2.0)


def test_per_channel_and_per_group():
    x = torch.tensor([[[1.0, -2.0, 3.0, 4.0]], [[5.0, 6.0, -7.0, 0.0]]])
    channels = MinMaxObserver("w", shape=(2,), axis=0)
    channels.observe(x)
    assert channels.minimum.tolist() == [-2.0, -7.0]
    assert channels.maximum.tolist() == [4.0, 6.0]
    groups = MinMaxObserver("w", shape=(2, 2), axis=0, group_size=2)
    groups.observe(x)
    assert groups.maximum.tolist() == [[1.0, 4.0], [6.0, 0.0]]


@pytest.mark.parametrize("kind", OBSERVERS.values())
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_bad_values_raise_with_name_and_counts_and_leave_the_range(kind, bad):
    observer = kind("layer1.conv")
    observer.observe(torch.tensor([-1.0, 2.0]))
    before = copy.deepcopy(observer.state_dict())
    with pytest.raises(ObservationError, match=r"layer1\.conv met . NaN and . infinite of 3 values"):
        observer.observe(torch.tensor([bad, 1.0, bad]))
    assert all(torch.equal(before[key], value) for key, value in observer.state_dict().items())


def test_minus_infinity_among_the_inputs_is_told_how_masks_are_passed():
    observer = OBSERVERS["minmax"]("input.mask")
    with pytest.raises(ObservationError, match=r"pass a mask as bools, or with -1e4 in place of minus infinity"):
        observer.observe(torch.tensor([0.0, -math.inf]))


def test_an_empty_batch_raises():
    with pytest.raises(ObservationError, match=r"x met an empty batch of shape \(0, 3\)"):
        MinMaxObserver("x").observe(torch.zeros(0, 3))


@pytest.mark.parametrize("kind", OBSERVERS.values())
def test_on_a_device_bad_batches_are_left_out_and_reported_later(kind, monkeypatch):
    observer = kind("x")
    observer.observe(torch.tensor([-1.0, 2.0]))
    observer.check()
    before = copy.deepcopy(observer.state_dict())
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)  # decides on the tensor's device
    observer.observe(torch.tensor([math.nan, 9.0]))
    observer.observe(torch.tensor([math.inf, 9.0]))
    monkeypatch.undo()
    after = observer.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before if key != "bad_batches")
    with pytest.raises(ObservationError, match="x met NaN or infinity in 2 batches"):
        observer.check()
    observer.check()


@pytest.mark.parametrize("kind", OBSERVERS.values())
def test_state_dict_round_trip_is_exact_and_continues_alike(kind):
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn(50, generator=generator) * 3**k for k in range(4)]
    whole, first = kind("x"), kind("x")
    for batch in batches:
        whole.observe(batch)
    for batch in batches[:2]:
        first.observe(batch)
    second = kind("x")
    second.load_state_dict(first.state_dict())
    for batch in batches[2:]:
        second.observe(batch)
    assert all(torch.equal(a, b) for a, b in zip(whole.qparams(AFFINE), second.qparams(AFFINE), strict=True))
    assert all(torch.equal(value, second.state_dict()[key]) for key, value in whole.state_dict().items())


@pytest.mark.parametrize("kind", OBSERVERS.values())
def test_no_random_numbers_are_used(kind):
    state = torch.get_rng_state()
    observer = kind("x")
    observer.observe(torch.linspace(-1, 1, 100_000))
    observer.qparams(AFFINE)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_histogram_counts_on_bins_of_a_floating_point_format():
    observer = MSEObserver("x")
    observer.observe(torch.tensor([-0.75, 0.1, 0.1, 0.9]))
    # the range is -1..1, an octave has 32 bins, the outermost is 1/2..1: 0.75 is number 31 * 32 + 16 from 0 outwards;
    # 0.1 is 0.8 / 8, three octaves further in, at floor(0.6 * 32); 0.9 at floor(0.8 * 32)
    assert observer.exponent.item() == 0
    counts = {index: count for index, count in enumerate(observer.counts.tolist()) if count}
    assert counts == {1023 - 1008: 1, 1024 + 28 * 32 + 19: 2, 1024 + 31 * 32 + 25: 1}
    centres, widths = observer.centres(), observer.widths()
    assert centres[15] == -(0.5 + 16.5 / 64) and widths[15] == 1 / 64
    assert centres[1939] == (0.5 + 19.5 / 64) / 8 and widths[1939] == 1 / 512
    assert (centres[1023], centres[1024]) == (0.0, 0.0)
    assert (centres[1:] >= centres[:-1]).all()


def test_a_histogram_moves_bins_by_whole_octaves_when_the_range_grows():
    observer = MSEObserver("x", momentum=0.5)
    observer.observe(torch.tensor([-0.75, 0.1, 0.1, 0.9]))
    observer.observe(torch.tensor([3.5]))  # the range becomes -4..4, two octaves more; each batch counts one half
    assert observer.exponent.item() == 2
    assert {index: count for index, count in enumerate(observer.counts.tolist()) if count} == {
        15 + 64: 0.5,
        1939 - 64: 1.0,
        2041 - 64: 0.5,
        1024 + 31 * 32 + 24: 0.5,
    }


def test_what_lies_32_octaves_below_the_largest_value_counts_as_zero():
    observer = MSEObserver("x", momentum=0.5)
    observer.observe(torch.tensor([1.0, -1.0]))
    observer.observe(torch.tensor([2.0**40]))
    assert observer.counts[1022:1026].tolist() == [0.0, 0.5, 0.5, 0.0]


def test_a_sample_of_a_large_batch_keeps_the_extremes():
    x = torch.zeros(1_000_000)
    x[[12_345, 77_778]] = torch.tensor([-3.0, 3.5])
    observer = MSEObserver("x")
    observer.observe(x)
    taken = -(-1_000_000 // 7)  # every seventh, coprime to the length
    assert observer.counts[[1024 - 16 - 31 * 32 - 1, 2040]].tolist() == [pytest.approx(taken / 1_000_000)] * 2


@settings(deadline=None, max_examples=60)
@given(
    batches=st.lists(
        st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=20), min_size=1, max_size=5
    )
)
def test_a_histogram_loses_no_value(batches):
    observer = MSEObserver("x")
    for batch in batches:
        observer.observe(torch.tensor(batch))
    expected = sum(len(batch) for batch in batches) / len(batches)
    assert observer.counts.sum().item() == pytest.approx(expected, rel=1e-5)
    assert observer.counts.shape == (BINS,)
    scale, _ = observer.qparams(AFFINE)
    assert math.isfinite(scale.item()) and scale.item() > 0


@pytest.mark.parametrize("outlier", [100.0, 1e5, 1e8])
def test_percentile_leaves_out_rare_outliers_however_large(outlier):
    x = torch.linspace(0, 1, 16_000)
    x[5] = outlier
    observer = PercentileObserver("x")
    observer.observe(x)
    scale, zero_point = observer.qparams(AFFINE)
    assert 0.98 < scale.item() * 255 < 1.02  # bins there are 1/64 wide
    assert zero_point.item() == 0


@pytest.mark.parametrize("count", [1, 8])
def test_a_percentile_is_what_was_asked_for(count):
    observer = PercentileObserver("x", percentile=90.0)
    for batch in torch.linspace(-1, 1, 16_000).view(count, -1):
        observer.observe(batch)
    scale, _ = observer.qparams(QuantSpec(bits=8))
    assert scale.item() * 127 == pytest.approx(0.8, abs=1 / 64)


def heavy_tails():
    """Student's t with three degrees of freedom: its largest values grow with the cube root of their number."""
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(4, 100_000, generator=generator)
    return normal[0] / normal[1:].square().mean(0).sqrt()


@pytest.mark.parametrize("count", [1, 10])
@pytest.mark.parametrize("kind", ["mse", "histogram"])
@pytest.mark.parametrize("bits", [4, 8])
def test_the_range_of_heavy_tails_is_nearly_the_best_one(bits, kind, count):
    x, spec = heavy_tails(), QuantSpec(bits=bits)

    def error(scale):
        return (fake_quantize(x, scale, 0, spec.quant_min, spec.quant_max) - x).square().mean().item()

    observer = OBSERVERS[kind]("x")
    for batch in x.chunk(count):
        observer.observe(batch)
    best = min(error(x.abs().max() * 2 ** (-step / 32) / spec.quant_max) for step in range(200))
    assert error(observer.qparams(spec)[0]) < 1.1 * best
    assert best < 0.7 * error(x.abs().max() / spec.quant_max)


def test_mse_and_histogram_clip_what_minmax_keeps():
    x = torch.cat([torch.randn(10_000, generator=torch.Generator().manual_seed(0)), torch.tensor([20.0, -5.0])])
    spec = QuantSpec(bits=4, signed=False, symmetric=False)
    noise = {}
    for name in ("minmax", "mse", "histogram"):
        observer = OBSERVERS[name]("x")
        observer.observe(x)
        scale, zero_point = observer.qparams(spec)
        codes = torch.clamp(torch.round(x / scale) + zero_point, 0, 15)
        noise[name] = ((codes - zero_point) * scale - x).square().mean().item()
    assert noise["histogram"] <= noise["mse"] < 0.3 * noise["minmax"]


def test_histogram_per_channel():
    observer = HistogramObserver("w", shape=(2,), axis=0, momentum=1.0)
    observer.observe(torch.tensor([[1.0, -1.0], [0.0, 0.0]]))
    scale, _ = observer.qparams(QuantSpec(bits=8))
    assert scale.shape == (2,)
    assert scale[0].item() == pytest.approx(1 / 127, rel=0.1)


def test_what_one_forward_observes_is_one_batch():
    observer = MovingAverageObserver("x", momentum=0.5)
    observer.observe(torch.tensor([-1.0, 1.0]))
    observer.begin_forward()
    for values in ([0.0, 0.0], [-3.0, 0.0], [0.0, 5.0]):
        observer.observe(torch.tensor(values))
    observer.end_forward()
    assert (observer.minimum, observer.maximum, observer.batches) == (-2.0, 3.0, 2)
    observer.observe(torch.tensor([-4.0, 1.0]))
    assert (observer.minimum, observer.maximum, observer.batches) == (-3.0, 2.0, 3)


@pytest.mark.parametrize("kind", [MSEObserver, HistogramObserver])
def test_a_grid_finer_than_the_histogram_does_not_clip(kind):
    observer = kind("x")
    observer.observe(torch.cat([torch.linspace(-1.0, 1.0, 10_000), torch.tensor([10.0])]))
    scale, zero_point = observer.qparams(QuantSpec(bits=16, signed=False, symmetric=False))
    assert scale.item() == pytest.approx(11 / 65_535) and zero_point.item() == 5958
