import numpy
import pytest
import torch

from qat.data import ShapesDataModule, shapes
from qat.data.shapes import LARGEST_OVERLAP, PADDING_LABEL, SHAPES, SIDES, batch_of, scene, shape_mask
from qat.errors import ConfigurationError

SPLITS = {"train": 12, "val": 6, "test": 6}


@pytest.fixture
def plain(monkeypatch):
    """Scenes of one colour on another, in which shapes are all that is not black."""
    monkeypatch.setattr(shapes, "_background", lambda generator, size: numpy.zeros((3, size, size)))
    monkeypatch.setattr(shapes, "_paint", lambda generator, ground, mask: numpy.full((3, int(mask.sum())), 200.0))


@pytest.mark.parametrize("number", range(40))
def test_the_box_of_a_shape_reaches_exactly_as_far_as_its_pixels(plain, number):
    drawn = scene((0, number), size=64, most_shapes=1)
    rows, columns = numpy.nonzero(drawn.image[0])
    expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert drawn.boxes.tolist() == [expected]


def test_boxes_lie_in_the_image_and_hardly_on_each_other():
    for number in range(30):
        boxes = scene((1, number), size=64, most_shapes=6).boxes
        assert 1 <= len(boxes) <= 6
        assert boxes.min() >= 0 and boxes.max() <= 64
        sides = boxes[:, 2:] - boxes[:, :2]
        assert sides.max() <= SIDES[1]
        for index, box in enumerate(boxes):
            for other in boxes[:index]:
                common = (numpy.minimum(box[2:], other[2:]) - numpy.maximum(box[:2], other[:2])).clip(0).prod()
                # the places of a small shape, that the sum is about, can be a row larger than its box
                assert common <= 1.5 * LARGEST_OVERLAP * min((b[2:] - b[:2]).prod() for b in (box, other))


def test_outlines():
    def rows(label, turns=0):
        return ["".join(".#"[int(pixel)] for pixel in row) for row in shape_mask(SHAPES.index(label), 4, 6, turns)]

    assert rows("rectangle") == ["######"] * 4
    assert rows("ellipse") == [".####.", "######", "######", ".####."]
    assert rows("cross") == ["..##..", "######", "######", "..##.."]
    assert rows("ring") == [".####.", "#....#", "#....#", ".####."]
    assert rows("triangle") == ["......", "..##..", ".####.", "######"]
    assert rows("triangle", turns=2) == rows("triangle")[::-1]
    assert rows("triangle", turns=1) != rows("triangle", turns=3)


def test_every_class_is_drawn_and_stands_out():
    labels = set()
    for number in range(60):
        drawn = scene((2, number), size=64, most_shapes=1)
        labels |= set(drawn.labels.tolist())
        left, top, right, bottom = drawn.boxes[0].astype(int)
        inside = numpy.zeros((64, 64), dtype=bool)
        inside[top:bottom, left:right] = True
        image = drawn.image.astype(float)
        assert abs(image[:, inside].mean(1) - image[:, ~inside].mean(1)).max() > 15
    assert labels == set(range(len(SHAPES)))


def test_a_batch_is_filled_up_to_its_fullest_image():
    scenes = [scene((3, number), size=64, most_shapes=4) for number in range(8)]
    images, targets = batch_of(scenes)
    most = max(len(entry.labels) for entry in scenes)
    assert images.shape == (8, 3, 64, 64) and images.dtype == torch.float32
    assert torch.equal((images * 255).round().to(torch.uint8), torch.tensor(numpy.stack([s.image for s in scenes])))
    assert targets["boxes"].shape == (8, most, 4) and targets["labels"].shape == (8, most)
    for row, entry in enumerate(scenes):
        count = len(entry.labels)
        assert targets["boxes"][row, :count].tolist() == entry.boxes.tolist()
        assert targets["labels"][row, :count].tolist() == entry.labels.tolist()
        assert (targets["labels"][row, count:] == PADDING_LABEL).all() and (targets["boxes"][row, count:] == 0).all()


def images_of(module, split, draws):
    module.setup()
    return module.splits[split].__getitems__(draws)[0]


def test_training_sees_new_images_every_epoch_and_the_other_splits_their_own_always():
    module = ShapesDataModule(SPLITS)
    assert not torch.equal(images_of(module, "train", [0, 1]), images_of(module, "train", [12, 13]))
    for split in ("val", "test"):
        assert torch.equal(images_of(module, split, [0, 1]), images_of(module, split, [6, 7]))
        assert not torch.equal(images_of(module, split, [0, 1]), images_of(module, "train", [0, 1]))
    assert not torch.equal(images_of(module, "val", [0, 1]), images_of(module, "test", [0, 1]))


def test_the_images_depend_on_the_seed_of_the_splits_alone():
    first, ordered, other = (
        ShapesDataModule(SPLITS),
        ShapesDataModule(SPLITS, seed=1),
        ShapesDataModule(SPLITS, split_seed=1),
    )
    assert torch.equal(images_of(first, "test", [0]), images_of(ordered, "test", [0]))
    assert not torch.equal(images_of(first, "test", [0]), images_of(other, "test", [0]))


def test_loaders_give_whole_batches():
    module = ShapesDataModule(SPLITS, batch_size=4, limit=5)
    module.setup()
    assert [len(split) for split in module.splits.values()] == [5, 5, 5]
    for loader in (module.train_dataloader(), module.val_dataloader(), module.test_dataloader()):
        sizes = [(len(images), len(targets["boxes"]), len(targets["labels"])) for images, targets in loader]
        assert sizes == [(4, 4, 4), (1, 1, 1)]
    image, target = module.splits["test"][3]
    assert image.shape == (3, 64, 64) and target["boxes"].shape == (len(target["labels"]), 4)


@pytest.mark.parametrize(
    "settings, sentence",
    [
        ({"sizes": {"train": 4, "val": 4}}, "data.sizes is {'train': 4, 'val': 4}; give train, val, test"),
        ({"sizes": SPLITS | {"val": 0}}, "each a whole number from 1 on"),
        ({"size": 63}, "data.size is 63; shapes are drawn on at least 64 pixels"),
        ({"most_shapes": 0}, "data.most_shapes is 0"),
        ({"batch_size": 0}, "data.batch_size is 0"),
    ],
)
def test_impossible_settings_are_refused(settings, sentence):
    with pytest.raises(ConfigurationError, match=sentence):
        ShapesDataModule(**{"sizes": SPLITS} | settings)
