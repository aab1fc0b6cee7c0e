"""Pictures of bytes, the real numbers that networks take, and their codes."""

import pytest
import torch

from qat.errors import ConfigurationError, ProgramError
from qat.integer.images import ImageScaling, check_fits
from qat.integer.reals import quantize
from qat.integer.values import Grid, float32

IMAGENET = ImageScaling((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
GRID = Grid(float32(0.01875), 113, 0, 255)


def every_pixel(channels):
    """(256, channels, 1, 1): each pixel in each channel."""
    return torch.arange(256, dtype=torch.uint8).reshape(-1, 1, 1, 1).expand(-1, channels, 1, 1).contiguous()


def test_pixels_are_scaled_and_normalized_by_hand():
    scaling = ImageScaling(0.5, 0.25)
    pictures = torch.tensor([[[0, 51, 255]]], dtype=torch.uint8)
    assert scaling.normalize(pictures).tolist() == [[[-2.0, float32((float32(0.2) - 0.5) * 4), 2.0]]]


def test_the_order_is_that_of_data_pipelines():
    pictures = every_pixel(3)
    mean, std = (torch.tensor(numbers).reshape(3, 1, 1) for numbers in (IMAGENET.mean, IMAGENET.std))
    assert torch.equal(IMAGENET.normalize(pictures), (pictures.float() / 255 - mean) / std)
    assert torch.equal(ImageScaling(0.1307, 0.3081).normalize(pictures), (pictures / 255 - 0.1307) / 0.3081)


def test_the_table_is_the_code_of_every_normalized_pixel():
    codes = quantize(IMAGENET.normalize(every_pixel(3)), GRID)[:, :, 0, 0].T
    assert torch.equal(IMAGENET.table(GRID), codes)
    assert ImageScaling(0.5, 0.25).table(Grid(0.25, 0, -8, 7))[0, [0, 51, 128, 255]].tolist() == [-8, -5, 0, 7]


def test_channels_last_moves_the_channels_to_where_the_network_has_them():
    last = ImageScaling(IMAGENET.mean, IMAGENET.std, channels_last=True)
    pictures = torch.randint(0, 256, (2, 4, 5, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(last.normalize(pictures), IMAGENET.normalize(pictures.permute(0, 3, 1, 2)))


@pytest.mark.parametrize("channels_last", [False, True])
def test_numbers_become_the_pictures_they_are_of(channels_last):
    scaling = ImageScaling(IMAGENET.mean, IMAGENET.std, channels_last=channels_last)
    pictures = every_pixel(3).movedim(1, -1) if channels_last else every_pixel(3)
    assert torch.equal(scaling.pictures(scaling.normalize(pictures), GRID), pictures)


def test_numbers_of_other_pictures_are_refused():
    with pytest.raises(ConfigurationError, match=r"1 of 3 numbers are not \(pixel / 255 - mean\) / std of whole"):
        ImageScaling().pictures(torch.tensor([[[0.0, 1.0, 1.5 / 255 + 1e-4]]]), Grid(float32(1 / 1024), 0, 0, 255))


def test_pixels_may_end_before_255():
    sixteen = ImageScaling(largest=16)
    assert sixteen.normalize(torch.tensor([[[0, 8, 16]]], dtype=torch.uint8)).tolist() == [[[0.0, 0.5, 1.0]]]
    assert sixteen.pictures(torch.tensor([[[0.0, 0.5, 1.0]]]), GRID).tolist() == [[[0, 8, 16]]]
    assert sixteen.grid == Grid(0.0625, 0, 0, 255)


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(mean=(0.1, 0.2), std=(1.0, 1.0, 1.0)), "mean has 2 numbers and std 3"),
        (dict(std=0.0), "std is .0.0."),
        (dict(mean=float("nan")), "mean is nan"),
        (dict(mean=()), "mean is"),
        (dict(std="grey"), "std is 'grey'"),
        (dict(largest=256), "largest is 256"),
        (dict(channels_last=1), "channels_last is 1"),
    ],
)
def test_numbers_that_scale_nothing_are_refused(settings, message):
    with pytest.raises(ProgramError, match=message):
        ImageScaling(**settings)


@pytest.mark.parametrize(
    "shape, is_real, message",
    [
        ((3, 8, 8), False, "made of indices"),
        ((3,), True, r"of shape \(3,\)"),
        ((1, 8, 8), True, "of 3 channels, but input 'x' has 1"),
    ],
)
def test_inputs_that_are_no_pictures_are_refused(shape, is_real, message):
    with pytest.raises(ProgramError, match=message):
        check_fits(IMAGENET, "x", shape, is_real)
