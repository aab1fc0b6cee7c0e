import math

import pytest
import torch

from qat.data.cepstrum import BANDS, CLIP, COEFFICIENTS, FRAMES, SAMPLE_RATE, coefficients, cosines, mel_bands


def test_shapes_are_those_of_the_benchmark():
    assert (FRAMES, COEFFICIENTS) == (49, 10)
    assert coefficients(torch.zeros(3, CLIP)).shape == (3, 49, 10)


def test_silence_is_the_logarithm_of_the_floor_in_the_first_coefficient_alone():
    silence = coefficients(torch.zeros(1, CLIP))[0]
    expected = torch.zeros(49, 10)
    expected[:, 0] = math.log(1e-6) * math.sqrt(BANDS)  # BANDS equal logarithms by 1 / sqrt(BANDS)
    torch.testing.assert_close(silence, expected, atol=1e-4, rtol=0)


def test_the_cosines_are_orthonormal():
    torch.testing.assert_close(cosines().T @ cosines(), torch.eye(COEFFICIENTS))


@pytest.mark.parametrize("frequency", [300, 1000, 3000])
def test_a_tone_is_loudest_in_the_band_around_it(frequency):
    bands = mel_bands()
    peak = int(bands[round(frequency * 512 / SAMPLE_RATE)].argmax())
    tone = torch.sin(2 * math.pi * frequency * torch.arange(480) / SAMPLE_RATE)
    energies = torch.fft.rfft(tone * torch.hann_window(480), 512).abs() @ bands
    assert abs(int(energies.argmax()) - peak) <= 1


def test_bands_lie_between_the_lowest_and_the_highest_frequency():
    covered = mel_bands().sum(1).nonzero().flatten() * SAMPLE_RATE / 512
    assert 20 <= covered.min() < 70 and 3950 < covered.max() <= 4000


def test_twice_the_loudness_moves_the_first_coefficient_alone():
    noise = torch.randn(1, CLIP, generator=torch.Generator().manual_seed(0)) / 10
    difference = coefficients(2 * noise) - coefficients(noise)
    torch.testing.assert_close(
        difference[0, :, 0], torch.full((49,), math.log(2) * math.sqrt(BANDS)), atol=1e-2, rtol=0
    )
    assert difference[0, :, 1:].abs().max() < 1e-2
