import builtins
import sys

import pytest
import torch

from qat.errors import MissingExtraError
from qat.models.average_precision import MeanAveragePrecision

NOTHING = -20.0  # the logit of a score below all that count


def metric(num_classes=1):
    return MeanAveragePrecision(size=32, strides=(16,), num_classes=num_classes)


def outputs(*found, images=1, num_classes=1):
    """Detections (image, point, label, logit, distances in strides); points are (8, 8), (24, 8), (8, 24), (24, 24)."""
    logits, distances = torch.full((images, num_classes, 4), NOTHING), torch.zeros(images, 4, 4)
    for image, point, label, logit, edges in found:
        logits[image, label, point] = logit
        distances[image, :, point] = torch.tensor(edges)
    return {"logits": logits, "distances": distances}


def targets(*rows):
    """Of every image its boxes and labels."""
    most = max(len(row) for row in rows)
    boxes, labels = torch.zeros(len(rows), most, 4), torch.full((len(rows), most), -1)
    for image, row in enumerate(rows):
        for index, (box, label) in enumerate(row):
            boxes[image, index], labels[image, index] = torch.tensor(box), label
    return {"boxes": boxes, "labels": labels}


TOP_LEFT, TOP_RIGHT = [0.0, 0.0, 16.0, 16.0], [16.0, 0.0, 32.0, 16.0]
EXACT = [0.5] * 4  # half a stride of 16 to every edge


def precision(found, wanted, num_classes=1):
    made = metric(num_classes)
    made.update(found, wanted)
    return made.compute().item()


def test_exact_boxes_have_a_precision_of_one():
    assert precision(outputs((0, 0, 0, 4.0, EXACT)), targets([(TOP_LEFT, 0)])) == 1.0


def test_a_box_counts_at_the_overlaps_that_it_reaches():
    # 0..16 by 0..11.52 covers 0.72 of the true box: right at 0.50, 0.55, 0.60, 0.65 and 0.70, wrong at the other five
    found = outputs((0, 0, 0, 4.0, [0.5, 0.5, 0.5, 0.22]))
    assert precision(found, targets([(TOP_LEFT, 0)])) == pytest.approx(5 / 10)


def test_a_better_scored_mistake_halves_the_precision():
    found = outputs((0, 3, 0, 6.0, EXACT), (0, 0, 0, 4.0, EXACT))
    assert precision(found, targets([(TOP_LEFT, 0)])) == pytest.approx(0.5)
    worse = outputs((0, 3, 0, 2.0, EXACT), (0, 0, 0, 4.0, EXACT))
    assert precision(worse, targets([(TOP_LEFT, 0)])) == pytest.approx(1.0)


def test_a_box_that_is_not_found_ends_the_recall():
    # one of two: a precision of 1 at the recalls 0.00 to 0.50 of 101
    found = outputs((0, 0, 0, 4.0, EXACT))
    assert precision(found, targets([(TOP_LEFT, 0), (TOP_RIGHT, 0)])) == pytest.approx(51 / 101)


def test_it_is_the_mean_over_classes_that_are_there():
    found = outputs((0, 0, 0, 4.0, EXACT), num_classes=3)
    wanted = targets([(TOP_LEFT, 0), (TOP_RIGHT, 1)])
    assert precision(found, wanted, num_classes=3) == pytest.approx((1 + 0) / 2)


def test_images_are_kept_apart_over_batches():
    made = metric()
    made.update(outputs((1, 0, 0, 4.0, EXACT), images=2), targets([], [(TOP_LEFT, 0)]))
    made.update(outputs((0, 0, 0, 4.0, EXACT)), targets([(TOP_RIGHT, 0)]))  # found in the other image, not here
    # the true one first (of equal scores), then a mistake: precision 1 up to the recall of 1/2
    assert made.compute().item() == pytest.approx(51 / 101)


def test_the_value_of_a_batch_leaves_the_images_before_it_apart():
    made = metric()
    first = made(outputs((0, 0, 0, 4.0, EXACT)), targets([(TOP_LEFT, 0)]))
    second = made(outputs((0, 0, 0, 4.0, EXACT)), targets([(TOP_RIGHT, 0)]))
    assert (first, second) == (1.0, 0.0) and made.compute().item() == pytest.approx(51 / 101)


def test_nothing_found_is_zero_and_nothing_to_find_no_number():
    assert precision(outputs(), targets([(TOP_LEFT, 0)])) == 0.0
    assert torch.tensor(
        precision(outputs((0, 0, 0, 4.0, EXACT)), {"boxes": torch.zeros(1, 1, 4), "labels": torch.full((1, 1), -1)})
    ).isnan()


def test_a_copy_starts_empty_and_nothing_is_printed(capsys):
    made = metric()
    made.update(outputs(), targets([(TOP_LEFT, 0)]))
    copy = made.clone()
    copy.reset()
    copy.update(outputs((0, 0, 0, 4.0, EXACT)), targets([(TOP_LEFT, 0)]))
    assert (made.compute(), copy.compute()) == (0.0, 1.0)
    assert capsys.readouterr().out == ""


def test_without_pycocotools_the_extra_is_named(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "pycocotools"]:
        monkeypatch.delitem(sys.modules, name)
    real = builtins.__import__

    def absent(name, *args, **kwargs):
        if name.partition(".")[0] == "pycocotools":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(MissingExtraError, match=r'pip install "lightning-qat\[detection\]"'):
        metric()
