import pytest
import torch

from qat.models import boxes
from qat.models.boxes import decode, detections_of, generalized_overlaps, overlaps, points_of, suppressed


def test_points_lie_in_the_middle_of_their_fields_level_by_level():
    points = points_of(32, (8, 16))
    assert points.centres[:5].tolist() == [[4, 4], [12, 4], [20, 4], [28, 4], [4, 12]]
    assert points.centres[16:].tolist() == [[8, 8], [24, 8], [8, 24], [24, 24]]
    assert points.strides.tolist() == [8] * 16 + [16] * 4
    assert points.shortest.tolist() == [0] * 16 + [24] * 4
    assert points.longest.tolist() == [24] * 16 + [float("inf")] * 4


def test_edges_lie_their_distance_in_strides_from_the_point():
    points = points_of(32, (8, 16))
    distances = torch.zeros(1, 4, 20)
    distances[0, :, 5] = torch.tensor([0.5, 1.0, 1.5, 2.0])  # of (12, 12), stride 8
    distances[0, :, 19] = torch.tensor([1.5, 0.25, 0.5, 0.0])  # of (24, 24), stride 16
    found = decode(distances, points)
    assert found.shape == (1, 20, 4)
    assert found[0, 5].tolist() == [8, 4, 24, 28]
    assert found[0, 19].tolist() == [0, 20, 32, 24]
    assert found[0, 0].tolist() == [4, 4, 4, 4]


def test_overlaps_by_hand():
    one = torch.tensor([0.0, 0.0, 10.0, 10.0])
    other = torch.tensor(
        [[0.0, 0.0, 10.0, 10.0], [5.0, 0.0, 15.0, 10.0], [20.0, 0.0, 30.0, 10.0], [3.0, 3.0, 3.0, 3.0]]
    )
    share, union = overlaps(one, other)
    assert share.tolist() == pytest.approx([1, 50 / 150, 0, 0])
    assert union.tolist() == [100, 150, 200, 100]
    # around the third pair lies a box of 300, of which 100 are filled by neither
    assert generalized_overlaps(one, other).tolist() == pytest.approx([1, 1 / 3, -100 / 300, 0])


def test_of_overlapping_boxes_of_a_class_the_best_stays():
    close = torch.tensor(
        [[0.0, 0.0, 10.0, 10.0], [1.0, 0.0, 10.0, 10.0], [1.0, 0.0, 10.0, 10.0], [5.0, 0.0, 15.0, 10.0]]
    )
    assert suppressed(close[None], torch.tensor([[0, 0, 1, 0]])).tolist() == [[False, True, False, False]]


def test_a_box_that_is_gone_takes_no_other_with_it():
    steps = torch.tensor([[0.0, 0.0, 10.0, 10.0], [2.0, 0.0, 12.0, 10.0], [4.0, 0.0, 14.0, 10.0]])  # 2/3, 2/3, 3/7
    assert suppressed(steps[None], torch.zeros(1, 3, dtype=torch.int64)).tolist() == [[False, True, False]]


def test_detections_are_sorted_and_the_first_of_equal_scores_leads():
    points = points_of(32, (16,))
    logits = torch.full((1, 2, 4), -20.0)
    logits[0, 1, 2], logits[0, 0, 3], logits[0, 0, 1] = 2.0, 0.0, 0.0
    found = detections_of({"logits": logits, "distances": torch.full((1, 4, 4), 0.25)}, points)
    assert found.labels[0, :3].tolist() == [1, 0, 0]
    assert found.boxes[0, :3].tolist() == [[4, 20, 12, 28], [20, 4, 28, 12], [20, 20, 28, 28]]
    assert found.scores[0, :3].tolist() == pytest.approx([torch.tensor(2.0).sigmoid().item(), 0.5, 0.5])
    assert found.kept.tolist() == [[True, True, True] + [False] * 5]


def test_no_more_detections_than_coco_counts(monkeypatch):
    monkeypatch.setattr(boxes, "MOST_DETECTIONS", 3)
    outputs = {"logits": torch.zeros(2, 2, 4), "distances": torch.full((2, 4, 4), 0.25)}
    assert detections_of(outputs, points_of(32, (16,))).kept.tolist() == [[True] * 3] * 2
