"""Generated images of shapes with their boxes, for detection: every image is a pure function of seed and number."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy
import torch
from torch.utils.data import Dataset

from qat.data.module import InMemoryDataModule
from qat.errors import ConfigurationError
from qat.integer.images import ImageScaling

#: Class numbers are places in this list.
SHAPES = ("ellipse", "rectangle", "triangle", "cross", "ring")

#: The class of a row that only fills a batch up, where another image of it has more shapes.
PADDING_LABEL = -1

#: Width and height of a shape, pixels: from what its outline can still be told at, to half of the smallest image.
SIDES = (10, 32)
SMALLEST_IMAGE = 2 * SIDES[1]

#: Of the smaller of two shapes, the share of its box that another may cover.
LARGEST_OVERLAP = 0.2

#: Places tried for a shape before it is left out.
TRIES = 8

#: Least difference between a shape's colour and the mean of the background, of 255, in the channel that differs most.
LEAST_CONTRAST = 60

#: Of images: to 0..1.
SCALING = ImageScaling()

#: What sets the splits apart, as one entry of the seed.
_SPLITS = {"train": 0, "val": 1, "test": 2}


@dataclass(frozen=True)
class Scene:
    """One image and what is in it.

    image: (3, size, size) uint8. boxes: (N, 4) float32 of left, top, right, bottom, pixel edges: a shape that covers
    columns 3 and 4 reaches from 3 to 5. labels: (N,) int64. N is at least 1.
    """

    image: numpy.ndarray
    boxes: numpy.ndarray
    labels: numpy.ndarray


def scene(seed: Sequence[int], size: int, most_shapes: int) -> Scene:
    """Draw from one to `most_shapes` shapes on a textured background of `size` x `size` pixels.

    A pure function of its arguments. A shape for which no place is found is left out.
    """
    generator = numpy.random.default_rng(seed)
    image = _background(generator, size)
    ground = image.mean((1, 2))
    boxes: list[tuple[int, int, int, int]] = []
    labels: list[int] = []
    for _ in range(generator.integers(1, most_shapes + 1)):
        box = _place(generator, size, boxes)
        if box is None:
            continue
        left, top, right, bottom = box
        label = int(generator.integers(len(SHAPES)))
        turns = int(generator.integers(4))
        mask = shape_mask(label, bottom - top, right - left, turns)
        # Rows and columns that the outline of a small shape leaves empty are not in its box.
        rows, columns = numpy.flatnonzero(mask.any(1)), numpy.flatnonzero(mask.any(0))
        covered = image[:, top:bottom, left:right]
        covered[:, mask] = _paint(generator, ground, mask)
        boxes.append((left + columns[0], top + rows[0], left + columns[-1] + 1, top + rows[-1] + 1))
        labels.append(label)
    return Scene(
        image.clip(0, 255).astype(numpy.uint8),
        numpy.array(boxes, dtype=numpy.float32).reshape(-1, 4),
        numpy.array(labels, dtype=numpy.int64),
    )


def shape_mask(label: int, height: int, width: int, turns: int = 0) -> numpy.ndarray:
    """Which pixels the shape `SHAPES[label]` covers: (height, width) bool. turns: quarter turns, of what has a top."""
    if turns % 2:
        height, width = width, height
    y = (2 * numpy.arange(height) + 1)[:, None] / height - 1  # centres of pixels, -1..1
    x = (2 * numpy.arange(width) + 1)[None, :] / width - 1
    return numpy.rot90(_OUTLINES[label](x, y), turns)


_OUTLINES: tuple[Callable[[numpy.ndarray, numpy.ndarray], numpy.ndarray], ...] = (
    lambda x, y: x**2 + y**2 <= 1,
    lambda x, y: (abs(x) <= 1) & (abs(y) <= 1),
    lambda x, y: abs(x) <= (1 + y) / 2,
    lambda x, y: (abs(x) <= 0.34) | (abs(y) <= 0.34),
    lambda x, y: (x**2 + y**2 <= 1) & (x**2 + y**2 >= 0.35),
)


def _background(generator: numpy.random.Generator, size: int) -> numpy.ndarray:
    """Blots of about 8 pixels, stripes and grain: (3, size, size) float, about 0..255."""
    blots = -(-size // 8) + 1
    coarse = generator.uniform(60, 195) + generator.normal(0, 22, size=(3, blots, blots))
    place = numpy.arange(size) / 8
    low = place.astype(int)
    share = place - low
    rows = coarse[:, low] * (1 - share)[:, None] + coarse[:, low + 1] * share[:, None]  # (3, size, blots)
    smooth = rows[:, :, low] * (1 - share) + rows[:, :, low + 1] * share
    angle, pitch = generator.uniform(0, numpy.pi), generator.uniform(4, 12)
    along = numpy.cos(angle) * numpy.arange(size)[:, None] + numpy.sin(angle) * numpy.arange(size)
    stripes = generator.uniform(0, 18) * numpy.sin(2 * numpy.pi * along / pitch)
    return smooth + stripes + generator.normal(0, 8, size=(3, size, size))


def _place(generator: numpy.random.Generator, size: int, taken: list) -> tuple[int, int, int, int] | None:
    """A box inside the image that hardly overlaps those `taken`, None where none of a few is free."""
    for _ in range(TRIES):
        side = generator.uniform(*SIDES)
        stretch = generator.uniform(0.8, 1.25) ** 0.5
        width, height = (int(numpy.clip(length, *SIDES)) for length in (side * stretch, side / stretch))
        left, top = generator.integers(0, size - width + 1), generator.integers(0, size - height + 1)
        box = (int(left), int(top), int(left) + width, int(top) + height)
        if all(_overlap(box, other) <= LARGEST_OVERLAP for other in taken):
            return box
    return None


def _overlap(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> float:
    """Common area over the area of the smaller box."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(right - left) * (bottom - top) for left, top, right, bottom in (one, other)]
    return width * height / min(areas)


def _paint(generator: numpy.random.Generator, ground: numpy.ndarray, mask: numpy.ndarray) -> numpy.ndarray:
    """A colour that stands out from `ground` (3,), with grain: (3, covered pixels) float."""
    colour = generator.uniform(0, 255, size=3)
    channel = int(abs(colour - ground).argmax())
    if abs(colour[channel] - ground[channel]) < LEAST_CONTRAST:
        colour[channel] = ground[channel] + (LEAST_CONTRAST if ground[channel] < 128 else -LEAST_CONTRAST)
    return colour[:, None] + generator.normal(0, 12, size=(3, int(mask.sum())))


class SceneData(Dataset):
    """Scenes read a batch at a time by `draw = epoch * size + index`; an index alone is a draw of epoch 0.

    fresh: whether every epoch has images of its own, or all have those of epoch 0.
    """

    def __init__(self, seed: Sequence[int], length: int, size: int, most_shapes: int, fresh: bool):
        self.seed, self.length, self.size, self.most_shapes, self.fresh = tuple(seed), length, size, most_shapes, fresh

    def __len__(self) -> int:
        return self.length

    def __getitems__(self, draws: Sequence[int]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        numbers = draws if self.fresh else [draw % len(self) for draw in draws]
        return batch_of([scene((*self.seed, number), self.size, self.most_shapes) for number in numbers])

    def __getitem__(self, draw: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        images, targets = self.__getitems__([draw])
        return images[0], {name: target[0] for name, target in targets.items()}


def batch_of(scenes: Sequence[Scene]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Images (B, 3, H, W) float32 in 0..1, and their targets, filled up to the image with most shapes.

    targets: "boxes" (B, M, 4) float32, left, top, right, bottom in pixels, 0 where filled up; "labels" (B, M) int64,
    `PADDING_LABEL` where filled up.
    """
    most = max(len(entry.labels) for entry in scenes)
    boxes = torch.zeros(len(scenes), most, 4)
    labels = torch.full((len(scenes), most), PADDING_LABEL)
    for row, entry in enumerate(scenes):
        boxes[row, : len(entry.boxes)] = torch.from_numpy(entry.boxes)
        labels[row, : len(entry.labels)] = torch.from_numpy(entry.labels)
    images = torch.from_numpy(numpy.stack([entry.image for entry in scenes]))
    return SCALING.normalize(images), {"boxes": boxes, "labels": labels}


class ShapesDataModule(InMemoryDataModule):
    """Batches of (images (B, 3, size, size) float32 in 0..1, targets as of `batch_of`); nothing is read or downloaded.

    Training sees new images in every epoch, validation and test always the same.

    batch_size, seed, limit, num_workers: see `InMemoryDataModule`.
    split_seed: of the images; apart from `seed`, so that runs of several seeds share a test split.
    sizes: how many images each of "train", "val" and "test" has.
    size: pixels along an edge. most_shapes: in an image.
    """

    image_scaling = SCALING

    def __init__(
        self,
        sizes: Mapping[str, int],
        batch_size: int = 32,
        seed: int = 0,
        split_seed: int = 0,
        size: int = 64,
        most_shapes: int = 4,
        limit: int | None = None,
        num_workers: int = 0,
    ):
        super().__init__(batch_size, seed, limit, num_workers)
        if set(sizes) != set(_SPLITS) or any(type(count) is not int or count < 1 for count in sizes.values()):
            raise ConfigurationError(
                f"data.sizes is {dict(sizes)}; give {', '.join(_SPLITS)}, each a whole number from 1 on."
            )
        if size < SMALLEST_IMAGE:
            raise ConfigurationError(f"data.size is {size}; shapes are drawn on at least {SMALLEST_IMAGE} pixels.")
        if most_shapes < 1:
            raise ConfigurationError(f"data.most_shapes is {most_shapes}; an image holds at least one shape.")
        self.sizes, self.split_seed, self.size, self.most_shapes = dict(sizes), split_seed, size, most_shapes

    def setup(self, stage: str | None = None) -> None:
        for name, number in _SPLITS.items():
            length = min(self.sizes[name], self.limit or self.sizes[name])
            seed = (self.split_seed, number)
            self.splits[name] = SceneData(seed, length, self.size, self.most_shapes, fresh=name == "train")
