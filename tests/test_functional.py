"""The arithmetic, against numbers written out by hand."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qat import functional
from qat.functional import (
    SCALE_FLOOR,
    along_axis,
    choose_qparams,
    clip_share,
    dequantize,
    fake_quantize,
    fake_quantize_learned,
    from_rows,
    quantize,
    round_ste,
    rows,
    signal_to_quantization_noise,
)
from qat.spec import QuantSpec


def test_quantize_divides_rounds_half_to_even_and_clamps():
    x = torch.tensor([-9.0, -0.75, -0.25, 0.25, 0.75, 1.2, 9.0])
    codes = quantize(x, 0.5, 0, quant_min=-8, quant_max=7)
    assert codes.dtype == torch.int32
    assert codes.tolist() == [-8, -2, 0, 0, 2, 2, 7]


def test_quantize_adds_the_zero_point_after_rounding():
    # 0.5 / 1 is a tie: round(0.5) + 1 = 1, while round(0.5 + 1) would be 2
    assert quantize(torch.tensor([0.5]), 1.0, 1, 0, 255).tolist() == [1]


def test_quantize_divides_and_does_not_multiply_by_the_reciprocal():
    # float32: 2.5 * 0.1 = 0.25 + 2^-28; dividing by 0.1 gives exactly 2.5, which rounds to 2
    scale = torch.tensor(0.1)
    assert quantize(torch.tensor([2.5]) * scale, scale, 0, -128, 127).tolist() == [2]


def test_midrise_levels_are_odd_half_steps():
    x = torch.tensor([-5.0, -0.9, -0.1, 0.1, 0.9, 1.1, 5.0])
    codes = quantize(x, 1.0, 0, -2, 1, midrise=True)
    assert codes.tolist() == [-2, -1, -1, 0, 0, 1, 1]
    assert dequantize(codes, 1.0, 0, midrise=True).tolist() == [-1.5, -0.5, -0.5, 0.5, 0.5, 1.5, 1.5]


def test_dequantize():
    assert dequantize(torch.tensor([0, 3, 15]), 0.25, 3).tolist() == [-0.75, 0.0, 3.0]


def test_round_ste():
    x = torch.tensor([0.5, 1.5, -0.7], requires_grad=True)
    rounded = round_ste(x)
    rounded.sum().backward()
    assert rounded.tolist() == [0.0, 2.0, -1.0]
    assert x.grad.tolist() == [1.0, 1.0, 1.0]


def test_gradient_passes_inside_the_grid_and_stops_outside():
    x = torch.tensor([-9.0, -0.3, 0.3, 9.0], requires_grad=True)
    fake_quantize(x, 0.5, 0, quant_min=-8, quant_max=7).sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 0]


def test_gradient_on_the_border_goes_by_the_rounded_code():
    # 3.7 = 7.4 steps rounds to 7 and is inside, 3.75 = 7.5 steps rounds to 8 and is clamped
    x = torch.tensor([3.5, 3.7, 3.75, -4.0, -4.2, -4.3], requires_grad=True)
    fake_quantize(x, 0.5, 0, -8, 7).sum().backward()
    assert x.grad.tolist() == [1, 1, 0, 1, 1, 0]


def test_learned_gradients_of_scale_by_hand():
    # scale 1/2: x / scale = -20, -1.5, 0.5, 1.25, 20; codes -8 (clamped), -2, 0, 1, 7 (clamped)
    x = torch.tensor([-10.0, -0.75, 0.25, 0.625, 10.0], requires_grad=True)
    for element, expected in enumerate([-8.0, -0.5, -0.5, -0.25, 7.0]):
        scale = torch.tensor(0.5, requires_grad=True)
        y = fake_quantize_learned(x, scale, torch.tensor(0.0), -8, 7, gradient_scale=1.0)
        y[element].backward()
        assert scale.grad.item() == expected
    assert x.grad.tolist() == [0, 1, 1, 1, 0]
    assert y.tolist() == [-4.0, -1.0, 0.0, 0.5, 3.5]


def test_learned_gradients_of_zero_point_by_hand():
    # grid 0..15 with zero point 2.6 -> 3 and scale 1/2 spans -1.5 .. 6
    x = torch.tensor([-3.0, 1.1, 8.0], requires_grad=True)
    scale, zero_point = torch.tensor(0.5, requires_grad=True), torch.tensor(2.6, requires_grad=True)
    y = fake_quantize_learned(x, scale, zero_point, 0, 15, gradient_scale=0.5)
    assert y.tolist() == [-1.5, 1.0, 6.0]
    (y * torch.tensor([1.0, 10.0, 3.0])).sum().backward()
    assert x.grad.tolist() == [0, 10, 0]
    assert zero_point.grad.item() == (-0.5 * 1 + -0.5 * 3) * 0.5
    # codes - zero point: -3 below, 12 above; inside 2 - 2.2
    assert scale.grad.item() == pytest.approx((-3 * 1 + (2 - 2.2) * 10 + 12 * 3) * 0.5, rel=1e-6)


def test_learned_gradients_per_channel_and_gradient_scale():
    x = torch.tensor([[0.75, 9.0], [0.75, -9.0]], requires_grad=True)
    scale = torch.tensor([[0.5], [1.0]], requires_grad=True)
    fake_quantize_learned(x, scale, torch.zeros(2, 1), -7, 7, gradient_scale=2.0).sum().backward()
    # channel 0: (2 - 1.5) + 7; channel 1: (1 - 0.75) - 7
    assert scale.grad.tolist() == [[15.0], [-13.5]]
    assert x.grad.tolist() == [[1, 0], [1, 0]]


def test_learned_gradients_midrise():
    # x / scale = 0.25, -1.25, 4, -4: levels 0.5, -1.5, 1.5, -1.5 (the last two clamped)
    x = torch.tensor([0.5, -2.5, 8.0, -8.0], requires_grad=True)
    for element, expected in enumerate([0.25, -0.25, 1.5, -1.5]):
        scale = torch.tensor(2.0, requires_grad=True)
        y = fake_quantize_learned(x, scale, torch.tensor(0.0), -2, 1, 1.0, midrise=True)
        y[element].backward()
        assert scale.grad.item() == expected
    assert y.tolist() == [1.0, -3.0, 3.0, -3.0]
    assert x.grad.tolist() == [1, 1, 0, 0]


def test_a_learned_scale_below_the_floor_still_gets_a_gradient():
    scale = torch.tensor(-1.0, requires_grad=True)
    y = fake_quantize_learned(torch.tensor([1.0]), scale, torch.tensor(0.0), -7, 7, 1.0)
    y.sum().backward()
    assert y.item() == 7 * SCALE_FLOOR
    assert scale.grad.item() == 7.0


def test_an_overflowed_gradient_moves_no_scale():
    scale = torch.tensor(1.0, requires_grad=True)
    y = fake_quantize_learned(torch.tensor([1.2, 2.0]), scale, torch.tensor(0.0), -7, 7, 1.0)
    (y * torch.tensor([math.inf, math.nan])).sum().backward()
    assert scale.grad.item() == 0.0


@pytest.mark.parametrize(
    ("spec", "low", "high", "scale", "zero_point"),
    [
        (QuantSpec(bits=8), -1.27, 0.5, 1.27 / 127, 0),
        (QuantSpec(bits=2), -3.0, 1.0, 2.0, 0),  # levels -3, -1, 1, 3
        (QuantSpec(bits=4, signed=False, symmetric=False), -3.0, 12.0, 1.0, 3),
        (QuantSpec(bits=4, signed=False, symmetric=False), 3.0, 15.0, 1.0, 0),  # widened to 0
        (QuantSpec(bits=4, signed=False, symmetric=False), -15.0, -5.0, 1.0, 15),
        (QuantSpec(bits=8, signed=True, symmetric=False), 0.0, 255.0, 1.0, -128),
        (QuantSpec(bits=8, signed=False, symmetric=True), -3.0, 510.0, 2.0, 0),
    ],
)
def test_choose_qparams_by_hand(spec, low, high, scale, zero_point):
    chosen, point = choose_qparams(torch.tensor(low), torch.tensor(high), spec)
    assert chosen.item() == pytest.approx(scale, rel=1e-7)
    assert point.item() == zero_point


@pytest.mark.parametrize("spec", [QuantSpec(), QuantSpec(bits=2), QuantSpec(signed=False, symmetric=False)])
def test_an_all_zero_channel_has_a_tiny_scale_and_stays_zero(spec):
    scale, zero_point = choose_qparams(torch.zeros(2), torch.tensor([0.0, 1.0]), spec)
    assert scale[0].item() == SCALE_FLOOR
    assert zero_point[0].item() == 0
    assert (scale[0] * scale[0]).item() >= torch.finfo(torch.float32).tiny


def test_choose_qparams_of_the_widest_range_is_finite():
    largest = torch.tensor(torch.finfo(torch.float32).max)
    scale, _ = choose_qparams(-largest, largest, QuantSpec(signed=False, symmetric=False))
    assert math.isfinite(scale.item())


@settings(deadline=None, max_examples=200)
@given(
    low=st.floats(-1e6, 1e6, width=32),
    high=st.floats(-1e6, 1e6, width=32),
    bits=st.sampled_from([2, 3, 4, 8, 16]),
    signed=st.booleans(),
)
def test_an_affine_grid_holds_zero_exactly(low, high, bits, signed):
    spec = QuantSpec(bits=bits, signed=signed, symmetric=False)
    scale, point = choose_qparams(torch.tensor(min(low, high)), torch.tensor(max(low, high)), spec)
    assert spec.quant_min <= point.item() <= spec.quant_max
    assert fake_quantize(torch.zeros(1), scale, point, spec.quant_min, spec.quant_max).item() == 0.0


@settings(deadline=None, max_examples=100)
@given(
    values=st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=40),
    scale=st.floats(2.0**-10, 100.0, width=32),
    point=st.integers(0, 15),
)
def test_fake_quantize_is_dequantize_of_quantize(values, scale, point):
    x = torch.tensor(values)
    expected = dequantize(quantize(x, scale, point, 0, 15), scale, point)
    assert torch.equal(fake_quantize(x, scale, point, 0, 15), expected)
    learned = fake_quantize_learned(x, torch.tensor(scale), torch.tensor(float(point)), 0, 15, 1.0)
    assert torch.equal(learned, expected)


def test_the_rest_of_the_last_group_is_its_last_value():
    x = torch.arange(10).reshape(2, 5)
    assert rows(x, 0, 2).tolist() == [[[0, 1], [2, 3], [4, 4]], [[5, 6], [7, 8], [9, 9]]]
    assert torch.equal(from_rows(rows(x, 0, 2), x.shape, 0), x)
    assert torch.equal(from_rows(rows(x, 1, 4), x.shape, 1), x)


def test_rows_and_back():
    x = torch.arange(24.0).view(2, 3, 4)
    assert rows(x).shape == (24,)
    assert rows(x, 1).tolist()[1] == [4, 5, 6, 7, 16, 17, 18, 19]
    assert rows(x, 0, 6).tolist()[1][0] == [12, 13, 14, 15, 16, 17]
    for axis, size in ((0, 6), (1, 4), (2, 3), (-1, 2)):
        assert torch.equal(from_rows(rows(x, axis, size), x.shape, axis), x)
    assert along_axis(torch.ones(3), 3, -2).shape == (1, 3, 1)


def test_start_of_lsq():
    assert functional.start_of_lsq(torch.tensor([-1.0, 3.0]), 4).item() == 2.0


def test_signal_to_quantization_noise():
    assert signal_to_quantization_noise(torch.tensor([3.0, 1.0]), torch.tensor([3.0, 0.0])) == pytest.approx(10.0)
    assert signal_to_quantization_noise(torch.ones(2), torch.ones(2)) == math.inf
    assert signal_to_quantization_noise(torch.zeros(1), torch.ones(1)) == -math.inf


def test_clip_share():
    assert clip_share(torch.tensor([-9.0, 0.0, 1.0, 3.74]), 0.5, 0, -8, 7) == 0.25


def test_the_marker_is_one_node_of_an_exported_graph():
    class Marked(torch.nn.Module):
        def forward(self, x):
            return torch.ops.qat.fake_quantize(x, "first") + 1

    x = torch.ones(2)
    assert torch.equal(Marked()(x), x + 1)
    graph = torch.export.export(Marked(), (x,)).graph
    marked = [node for node in graph.nodes if node.target == torch.ops.qat.fake_quantize.default]
    assert [node.args[1] for node in marked] == ["first"]
