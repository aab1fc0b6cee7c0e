"""The search for the scale of least squared error."""

import pytest
import torch

from qat.functional import fake_quantize
from qat.range_search import choose_scale_mse, sample
from qat.spec import QuantSpec


def error_at(x, scale, spec):
    rounded = fake_quantize(x, scale, 0, spec.quant_min, spec.quant_max, spec.midrise)
    return (rounded - x).square().sum().item()


def test_a_grid_without_outliers_is_found_exactly():
    x = torch.tensor([-7.0, -3.0, 0.0, 5.0, 7.0])
    scale, zero_point = choose_scale_mse(x, QuantSpec(bits=4))
    assert (scale.item(), zero_point.item()) == (1.0, 0)
    assert zero_point.dtype == torch.int32


def test_an_outlier_is_clipped():
    x = torch.cat([torch.linspace(-1, 1, 4001), torch.tensor([8.0])])
    scale, _ = choose_scale_mse(x, QuantSpec(bits=4))
    assert scale.item() < 0.5 * 8 / 7


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_close_to_an_exhaustive_search(bits):
    x = torch.randn(4096, generator=torch.Generator().manual_seed(bits))
    spec = QuantSpec(bits=bits)
    scale, _ = choose_scale_mse(x, spec)
    exhaustive = min(error_at(x, candidate, spec) for candidate in torch.linspace(0.01, 4.0, 2000))
    assert error_at(x, scale, spec) <= 1.01 * exhaustive


def test_channels_are_searched_apart():
    x = torch.randn(3, 200, generator=torch.Generator().manual_seed(0)) * torch.tensor([[1.0], [10.0], [0.0]])
    spec = QuantSpec(bits=4, granularity="per_channel")
    scale, _ = choose_scale_mse(x, spec, axis=0)
    assert scale.shape == (3,)
    for channel in range(3):
        alone, _ = choose_scale_mse(x[channel], spec)
        assert scale[channel].item() == alone.item()


def test_groups_and_affine():
    x = torch.arange(16.0).view(2, 8)
    spec = QuantSpec(bits=4, signed=False, symmetric=False, granularity="per_group", group_size=4)
    scale, zero_point = choose_scale_mse(x, spec, axis=0, group_size=4)
    assert scale.shape == zero_point.shape == (2, 2)
    scale, zero_point = choose_scale_mse(torch.arange(-3.0, 13.0), QuantSpec(bits=4, signed=False, symmetric=False))
    assert (scale.item(), zero_point.item()) == (1.0, 3)


def test_a_sample_is_spread_over_rows_and_columns():
    image = torch.arange(32).repeat(64)  # the column of each pixel
    assert len(sample(image, 64)) <= 64
    assert len(set(sample(image, 64).tolist())) == 32
    assert torch.equal(sample(image, 5000), image)


def test_a_compiler_that_does_not_know_the_size_samples_every_piece_of_it():
    sampled = torch.compile(lambda values: sample(values, 64), backend="eager", fullgraph=True, dynamic=True)
    columns = torch.arange(32).repeat(100)
    assert len(set(sampled(columns).tolist())) == 32
    for count in (64, 65, 2048, 5001):
        taken = sampled(torch.arange(count))
        assert len(taken) == 64
        assert all(index * (count // 64) <= place < (index + 1) * (count // 64) for index, place in enumerate(taken))
