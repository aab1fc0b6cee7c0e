"""Mel-frequency cepstral coefficients of one second of sound, as MLPerf Tiny's keyword spotting takes them."""

import functools
import math

import torch
from torch import Tensor

#: Samples in a second, and in a clip.
SAMPLE_RATE = 16_000
CLIP = 16_000

#: Samples of a window and between windows (30 ms, 20 ms), and the transform that a window is filled up to.
WINDOW, HOP, TRANSFORM = 480, 320, 512

#: Moments of a clip, and coefficients of each.
FRAMES, COEFFICIENTS = 49, 10

#: Bands on the mel scale, and the frequencies that they lie between, Hz.
BANDS, LOWEST, HIGHEST = 40, 20.0, 4000.0

#: What is added to the energy of a band, so that silence has a logarithm.
FLOOR = 1e-6


def coefficients(clips: Tensor) -> Tensor:
    """clips: (B, `CLIP`) float32 in -1..1. Returns (B, `FRAMES`, `COEFFICIENTS`), the logarithms of the energies of
    `BANDS` bands by the first terms of their cosine transform (DCT-II, orthonormal)."""
    frames = clips.unfold(1, WINDOW, HOP) * torch.hann_window(WINDOW)  # (B, FRAMES, WINDOW)
    spectrum = torch.fft.rfft(frames, TRANSFORM).abs()
    return torch.log(spectrum @ mel_bands() + FLOOR) @ cosines()


@functools.cache
def mel_bands() -> Tensor:
    """(TRANSFORM / 2 + 1, BANDS): triangles, evenly spaced on the mel scale. Callers must not write to it."""
    edges = torch.linspace(_mel(LOWEST), _mel(HIGHEST), BANDS + 2, dtype=torch.float64)
    frequencies = torch.arange(TRANSFORM // 2 + 1, dtype=torch.float64) * SAMPLE_RATE / TRANSFORM
    mels = 1127.0 * torch.log1p(frequencies / 700.0)
    rising = (mels[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - mels[:, None]) / (edges[2:] - edges[1:-1])
    return torch.minimum(rising, falling).clamp(min=0).float()


@functools.cache
def cosines() -> Tensor:
    """(BANDS, COEFFICIENTS), orthonormal columns. Callers must not write to it."""
    bands = torch.arange(BANDS, dtype=torch.float64)[:, None] + 0.5
    waves = torch.cos(math.pi / BANDS * bands * torch.arange(COEFFICIENTS)) * math.sqrt(2 / BANDS)
    waves[:, 0] /= math.sqrt(2)
    return waves.float()


def _mel(frequency: float) -> float:
    return 1127.0 * math.log1p(frequency / 700.0)
