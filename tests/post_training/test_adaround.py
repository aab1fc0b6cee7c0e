"""Learned rounding: the best codes where they can be tried one by one, and never worse ones than plain rounding."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qat.post_training.adaround import learned_rounding
from qat.post_training.moments import Moments
from qat.post_training.options import AdaRound
from qat.post_training.rows import Geometry
from qat.quantizers import make_fake_quantize
from qat.spec import QuantSpec


def quantizer_of(weight, **spec):
    """An observed quantizer of a weight, its scale chosen, in eval mode."""
    settings = {"bits": 4, "method": "observed", "observer": "minmax", **spec}
    quantizer = make_fake_quantize(QuantSpec(**settings), name="w", role="weight", shape=tuple(weight.shape), axis=0)
    quantizer(weight)
    quantizer.set_state(observe=False, fake_quantize=True)
    return quantizer.eval()


def moments_of(x, weight):
    """Of rows of inputs that a linear layer shall treat as with `weight`."""
    return Moments.of(x.unsqueeze(0), (x @ weight.T).unsqueeze(0), second=True)


def test_two_weights_of_one_input_are_rounded_to_opposite_sides():
    # scale 1: 7 is there for the range alone. Plain rounding takes 0.4 and 0.4 to 0, and an input of ones loses 0.8;
    # up and down loses 0.2
    weight = torch.tensor([[0.4, 0.4, 7.0]])
    quantizer = quantizer_of(weight)
    x = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]])
    rounded = learned_rounding(weight, quantizer, Geometry(), moments_of(x, weight), AdaRound(iterations=200))
    assert quantizer.codes(weight).tolist() == [[0, 0, 7]]
    assert sorted(quantizer.codes(rounded)[0].tolist()) == [0, 1, 7]
    moved = rounded != weight
    assert moved.sum() == 1 and rounded[moved].item() == 0.5625  # across the middle by a sixteenth of a step


def test_a_weight_that_is_rounded_as_before_keeps_its_bits():
    weight = torch.tensor([[0.3, -1.2, 7.0]])
    x = torch.eye(3)  # inputs that never meet: nothing is better than the nearest code
    rounded = learned_rounding(weight, quantizer_of(weight), Geometry(), moments_of(x, weight), AdaRound(iterations=50))
    assert torch.equal(rounded, weight)


@pytest.mark.parametrize("spec", [{}, {"bits": 2}, {"symmetric": False}, {"granularity": "per_channel"}], ids=str)
def test_it_comes_near_the_best_of_all_ways_to_round(spec):
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(8, 8, generator=generator)
    x = torch.randn(100, 8, generator=generator) @ torch.randn(8, 8, generator=generator)
    quantizer, moments = quantizer_of(weight, **spec), moments_of(x, weight)
    rounded = learned_rounding(weight, quantizer, Geometry(), moments, AdaRound(iterations=300))
    parameters = quantizer.qparams()
    scale = parameters.scale.view(-1, 1) if parameters.scale.dim() else parameters.scale
    half = 0.5 * parameters.midrise
    below = (torch.floor(weight / scale - half) + half) * scale
    ways = [quantizer(below + scale * torch.tensor(up)) for up in itertools.product((0.0, 1.0), repeat=8)]
    best = torch.stack([moments.squared_error(way.unsqueeze(0)) for way in ways]).amin(0).sum()
    plain, learned = (moments.squared_error(quantizer(each).unsqueeze(0)).sum() for each in (weight, rounded))
    assert best <= learned < best + (plain - best) / 3


def test_no_single_weight_could_be_rounded_better():
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(3, 8, generator=generator)
    x = torch.randn(30, 8, generator=generator) @ torch.randn(8, 8, generator=generator)
    quantizer, moments = quantizer_of(weight), moments_of(x, weight)
    rounded = learned_rounding(weight, quantizer, Geometry(), moments, AdaRound(iterations=5))
    scale = quantizer.qparams().scale
    below, codes = torch.floor(weight / scale), quantizer.codes(rounded)
    least = moments.squared_error(quantizer(rounded).unsqueeze(0))[0]
    for row, column in itertools.product(range(3), range(8)):
        other = codes.float()
        other[row, column] = 2 * below[row, column] + 1 - other[row, column]
        assert moments.squared_error(quantizer(other * scale).unsqueeze(0))[0, row] >= least[row]


@settings(max_examples=20, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), bits=st.sampled_from([2, 3, 4, 8]), iterations=st.sampled_from([1, 5, 60]))
def test_no_output_is_ever_worse_than_with_plain_rounding(seed, bits, iterations):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(4, 2, 3, 3, generator=generator)
    x = torch.randn(2, 4, 5, 5, generator=generator)
    geometry = Geometry.of("conv2d", (x, weight), {"groups": 2}, weight)
    rows, quantizer = geometry.rows(x), quantizer_of(weight, bits=bits, granularity="per_channel")
    moments = Moments.of(rows, rows @ geometry.matrix(weight).transpose(1, 2), second=True)
    rounded = learned_rounding(weight, quantizer, geometry, moments, AdaRound(iterations=iterations))
    plain, learned = (moments.squared_error(geometry.matrix(quantizer(each))) for each in (weight, rounded))
    assert (learned <= plain).all()
    assert ((quantizer.codes(rounded) - quantizer.codes(weight)).abs() <= 1).all()


def test_weights_in_groups_have_a_step_each():
    weight = torch.tensor([[0.4, 0.4, 7.0, 40.0, 40.0, 700.0]])
    quantizer = quantizer_of(weight, granularity="per_group", group_size=3)
    x = torch.tensor([[1.0, 1.0, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0, 1.0, 0.0]])
    rounded = learned_rounding(weight, quantizer, Geometry(), moments_of(x, weight), AdaRound(iterations=200))
    codes = quantizer.codes(rounded)[0].tolist()
    assert [sorted(codes[:3]), sorted(codes[3:])] == [[0, 1, 7], [0, 1, 7]]
