"""Images with the boxes that were found in them, beside the true ones."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from matplotlib.patches import Rectangle

from qat.report.figures import style

COLUMNS = 6
INCHES = (style.WIDTH - 0.1) / COLUMNS  # of an image
TRUE, FOUND = "#ffffff", "#fde047"


@dataclass(frozen=True)
class Box:
    """left, top, right, bottom: pixel edges. text: written over a found box; None for a true one, which is dashed."""

    left: float
    top: float
    right: float
    bottom: float
    text: str | None = None


def images_with_boxes(images: Sequence[torch.Tensor], boxes: Sequence[Sequence[Box]]) -> bytes | None:
    """A grid of images (3, H, W) in 0..1 with their boxes as PNG, None without images."""
    if not len(images):
        return None
    rows = math.ceil(len(images) / COLUMNS)
    with style.settings():
        made = style.figure(rows * (INCHES + 0.1) + 0.1)
        grid = made.subplots(rows, COLUMNS, squeeze=False).flatten()
        for axes in grid:
            axes.set_axis_off()
        for axes, image, marked in zip(grid, images, boxes, strict=False):
            axes.imshow(image.permute(1, 2, 0).clamp(0, 1).numpy(), interpolation="nearest")
            for box in sorted(marked, key=lambda box: box.text is not None):
                _draw(axes, box)
        style.place(made, left=0.05, right=0.05, top=0.14, bottom=0.02, wspace=0.05, hspace=0.1)
        return style.png(made)


def _draw(axes, box: Box) -> None:
    corner = (box.left - 0.5, box.top - 0.5)  # the middle of a pixel lies at whole numbers
    line = {"edgecolor": TRUE, "linestyle": (0, (3, 2))} if box.text is None else {"edgecolor": FOUND}
    axes.add_patch(Rectangle(corner, box.right - box.left, box.bottom - box.top, fill=False, linewidth=1.1, **line))
    if box.text is not None:
        axes.annotate(
            box.text,
            corner,
            (0, 1),
            textcoords="offset points",
            fontsize=6,
            color=style.INK,
            bbox={"facecolor": FOUND, "edgecolor": "none", "pad": 0.8},
            annotation_clip=False,
        )
