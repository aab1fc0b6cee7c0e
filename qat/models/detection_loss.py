"""What a detector should say at each point, and how far it is from that."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from qat.models.boxes import Points, areas_of, decode, generalized_overlaps, overlaps

#: A box is learned at the points within so many strides of its middle: those at its rim see little of it
#: (center sampling, FCOS, arXiv:1904.01355).
RADIUS = 1.5

#: Weight of the boxes beside that of the classes, as in Generalized Focal Loss (arXiv:2006.04388).
BOX_WEIGHT = 2.0


def assign(points: Points, boxes: Tensor, labels: Tensor) -> Tensor:
    """Which box each point is to find: (B, N) int64, -1 for none.

    boxes (B, M, 4), labels (B, M) with -1 for rows that are no box. A point takes boxes of its level's size around it,
    near whose middle it is, and the smallest of several.
    """
    x, y = points.centres[:, None, 0], points.centres[:, None, 1]  # (N, 1)
    left, top, right, bottom = boxes[:, None].unbind(-1)  # (B, 1, M)
    reach = RADIUS * points.strides[:, None]
    inside = (x > left) & (x < right) & (y > top) & (y < bottom)
    central = ((x - (left + right) / 2).abs() < reach) & ((y - (top + bottom) / 2).abs() < reach)
    longer = torch.maximum(right - left, bottom - top)
    fitting = (longer >= points.shortest[:, None]) & (longer < points.longest[:, None])
    found = inside & central & fitting & (labels[:, None] >= 0)  # (B, N, M)
    area = areas_of(boxes)[:, None].masked_fill(~found, float("inf"))
    smallest, index = area.min(dim=2)
    return torch.where(smallest.isfinite(), index, -1)


def detection_loss(outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor], points: Points) -> Tensor:
    """The loss of a batch, a sum over points divided by how many are to find a box.

    Of classes: quality focal loss (arXiv:2006.04388), where the score to reach is the overlap of the predicted box with
    the true one, so that the best boxes lead. Of boxes: 1 less the generalized overlap, weighted by `BOX_WEIGHT`.

    outputs: "logits" (B, C, N), "distances" (B, 4, N). targets: "boxes" (B, M, 4), "labels" (B, M), -1 for no box.
    """
    logits = outputs["logits"].float().transpose(1, 2)  # (B, N, C)
    boxes = decode(outputs["distances"].float(), points)
    assigned = assign(points, targets["boxes"], targets["labels"])
    image, point = torch.nonzero(assigned >= 0, as_tuple=True)
    wanted = assigned[image, point]
    true, label = targets["boxes"][image, wanted], targets["labels"][image, wanted]
    predicted = boxes[image, point]
    quality = torch.zeros_like(logits)
    quality[image, point, label] = overlaps(predicted.detach(), true)[0]
    distance = (logits.sigmoid() - quality).square()
    classes = (distance * F.binary_cross_entropy_with_logits(logits, quality, reduction="none")).sum()
    edges = (1 - generalized_overlaps(predicted, true)).sum()
    return (classes + BOX_WEIGHT * edges) / max(1, len(wanted))
