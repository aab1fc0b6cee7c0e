"""From the raw outputs of a detector to boxes, in plain torch: the same for training, the fake-quantized network and
the exported file, whose integers end where this begins.

Boxes are (..., 4) of left, top, right, bottom in pixels.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

#: Longest side of the boxes that a level finds, in its strides; the coarsest finds all that are longer.
LONGEST_SIDE = 3

#: Detections below this score are not looked at.
LEAST_SCORE = 0.05

#: Of detections of a class that overlap by more than this share of their union only the best is kept.
LARGEST_OVERLAP = 0.6

#: Detections of an image, at most: what COCO counts.
MOST_DETECTIONS = 100


@dataclass(frozen=True)
class Points:
    """Where a detector looks.

    centres: (N, 2) x and y, pixels. strides: (N,) pixels between the points of a level. shortest, longest: (N,) the
    longer side of the boxes that are found here, from `shortest` to below `longest`, pixels.
    """

    centres: Tensor
    strides: Tensor
    shortest: Tensor
    longest: Tensor


@functools.cache
def points_of(size: int, strides: tuple[int, ...], device: torch.device | None = None) -> Points:
    """The points of square images of `size` pixels, level by level, row by row. Callers must not write to them."""
    centres, steps, shortest, longest = [], [], [], []
    for level, stride in enumerate(strides):
        line = (torch.arange(-(-size // stride), device=device) + 0.5) * stride
        y, x = torch.meshgrid(line, line, indexing="ij")
        centres.append(torch.stack([x.flatten(), y.flatten()], dim=1))
        ends = [0.0, *(float(LONGEST_SIDE * finer) for finer in strides[:-1]), float("inf")][level : level + 2]
        for values, value in ((steps, float(stride)), (shortest, ends[0]), (longest, ends[1])):
            values.append(torch.full((len(centres[-1]),), value, device=device))
    return Points(*(torch.cat(values) for values in (centres, steps, shortest, longest)))


def decode(distances: Tensor, points: Points) -> Tensor:
    """Boxes (B, N, 4) whose edges lie `distances` (B, 4, N), in strides, from the points."""
    pixels = distances.transpose(1, 2) * points.strides[:, None]
    return torch.cat([points.centres - pixels[..., :2], points.centres + pixels[..., 2:]], dim=-1)


def areas_of(boxes: Tensor) -> Tensor:
    """(..., 4) -> (...)."""
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1)


def overlaps(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Area of the intersection over that of the union, and the union's; boxes (..., 4) that broadcast -> (...)."""
    low = torch.maximum(one[..., :2], other[..., :2])
    high = torch.minimum(one[..., 2:], other[..., 2:])
    common = (high - low).clamp(min=0).prod(-1)
    union = areas_of(one) + areas_of(other) - common
    return common / union.clamp(min=1e-9), union


def generalized_overlaps(one: Tensor, other: Tensor) -> Tensor:
    """Overlap less the share that neither fills of the box around both, -1..1 (arXiv:1902.09630); (..., 4) -> (...)."""
    share, union = overlaps(one, other)
    low = torch.minimum(one[..., :2], other[..., :2])
    high = torch.maximum(one[..., 2:], other[..., 2:])
    around = (high - low).clamp(min=0).prod(-1)
    return share - (around - union) / around.clamp(min=1e-9)


@dataclass(frozen=True)
class Detections:
    """What was found in a batch, best first: boxes (B, K, 4), scores (B, K) in 0..1, labels (B, K) int64.

    kept: (B, K) bool; what is not is below the least score, or was found better elsewhere.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    kept: Tensor


@torch.no_grad()
def detections_of(outputs: Mapping[str, Tensor], points: Points) -> Detections:
    """The detections in a detector's raw outputs: "logits" (B, C, N) and "distances" (B, 4, N).

    Of equal scores the one that comes first in the logits leads, on every device.
    """
    scores = outputs["logits"].float().sigmoid().flatten(1)  # (B, C * N)
    best, places = scores.sort(dim=1, descending=True, stable=True)
    best, places = best[:, :MOST_DETECTIONS], places[:, :MOST_DETECTIONS]
    count = len(points.strides)
    labels, point = places // count, places % count
    boxes = decode(outputs["distances"].float(), points)
    boxes = boxes.gather(1, point[..., None].expand(-1, -1, 4))
    return Detections(boxes, best, labels, (best >= LEAST_SCORE) & suppressed(boxes, labels).logical_not())


def suppressed(boxes: Tensor, labels: Tensor) -> Tensor:
    """Which boxes (B, K, 4), best first, overlap too much with a better one of their class that stays: (B, K) bool."""
    share, _ = overlaps(boxes[:, :, None], boxes[:, None])  # (B, K, K)
    rivals = (share > LARGEST_OVERLAP) & (labels[:, :, None] == labels[:, None])
    gone = torch.zeros_like(labels, dtype=torch.bool)
    for better in range(boxes.shape[1] - 1):
        worse = slice(better + 1, None)
        gone[:, worse] |= rivals[:, better, worse] & ~gone[:, better, None]
    return gone
