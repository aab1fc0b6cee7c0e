import torch

from qat.report.weights import LayerWeights, histogram, weight_codes


def test_codes_bits_and_scale_per_code_of_every_layer(tiny_program):
    layers = weight_codes(tiny_program)
    assert list(layers) == ["head"]
    codes, bits, scale = layers["head"]
    assert codes.tolist() == [[-7, 0, 7], [1, 2, 3]]
    assert bits == 4
    assert scale.tolist() == [8.0, 4.0]  # 0.5 and 0.25 per kernel unit, 16 units per code


def test_a_scale_shared_by_several_channels_is_per_tensor():
    codes = torch.zeros(2, 3, dtype=torch.int8)
    assert LayerWeights(codes, 4, torch.tensor([0.5, 0.5])).per_tensor
    assert not LayerWeights(codes, 4, torch.tensor([0.5, 0.25])).per_tensor
    assert not LayerWeights(codes[:1], 4, torch.tensor([0.5])).per_tensor


def test_a_narrow_grid_has_one_bar_a_code():
    weights = LayerWeights(torch.tensor([[-2, -1, 1, 1]], dtype=torch.int8), 2, torch.ones(1))
    assert histogram(weights) == ([0.25, 0.25, 0.0, 0.5], -2, 1)


def test_a_wide_grid_gathers_codes():
    weights = LayerWeights(torch.tensor([[-128, -125, -124, 127]], dtype=torch.int8), 8, torch.ones(1))
    shares, first_code, codes_per_bar = histogram(weights)
    assert (len(shares), first_code, codes_per_bar) == (64, -128, 4)
    assert (shares[0], shares[1], shares[63], sum(shares)) == (0.5, 0.25, 0.25, 1.0)
