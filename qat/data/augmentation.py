"""Random crops and flips of whole batches, each a pure function of (seed, epoch, index of the sample)."""

import functools

import numpy
import torch


@functools.lru_cache(maxsize=2)
def crops_and_flips(seed: int, epoch: int, size: int, padding: int) -> torch.Tensor:
    """How every sample of an epoch is augmented: (size, 3) int64 of top, left (0..2*padding) and flipped (0 or 1).

    Callers must not write to the result: it is shared.
    """
    generator = numpy.random.default_rng((seed, epoch))
    corners = generator.integers(0, 2 * padding + 1, size=(size, 2))
    flipped = generator.integers(0, 2, size=(size, 1))
    return torch.from_numpy(numpy.concatenate([corners, flipped], axis=1))


def crop_and_flip(images: torch.Tensor, plan: torch.Tensor, padding: int) -> torch.Tensor:
    """Shift each image by up to `padding` pixels, black at the border, and mirror those marked.

    images: (B, C, H, W). plan: (B, 3), rows of `crops_and_flips`. Returns a new tensor of the same shape and type.
    """
    batch, _, height, width = images.shape
    top, left, flipped = (column[:, None] for column in plan.unbind(1))  # (B, 1) each
    rows = top + torch.arange(height)
    columns = torch.arange(width).expand(batch, width)
    columns = left + torch.where(flipped.bool(), width - 1 - columns, columns)
    padded = torch.nn.functional.pad(images, [padding] * 4)
    samples = torch.arange(batch)[:, None, None]
    cropped = padded.permute(0, 2, 3, 1)[samples, rows[:, :, None], columns[:, None, :]]  # (B, H, W, C)
    return cropped.permute(0, 3, 1, 2).contiguous()
