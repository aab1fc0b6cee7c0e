import math

import pytest
import torch

from qat.models.boxes import points_of
from qat.models.detection_loss import BOX_WEIGHT, assign, detection_loss

POINTS = points_of(64, (8, 16))  # 64 points of stride 8, row by row, then 16 of stride 16


def assigned(*boxes, labels=None):
    boxes = torch.tensor(boxes, dtype=torch.float32)[None]
    labels = torch.tensor(labels or [0] * boxes.shape[1])[None]
    found = assign(POINTS, boxes, labels)[0]
    return {point: int(found[point]) for point in torch.nonzero(found >= 0).flatten().tolist()}


def test_a_small_box_is_found_at_the_fine_points_inside_of_it():
    # x from 10 to 22 holds the columns at 12 and 20, y from 2 to 12 the row at 4
    assert assigned([10, 2, 22, 11]) == {1: 0, 2: 0}


def test_a_large_box_is_found_at_the_coarse_points_near_its_middle():
    # 8, 24 and 40 lie inside of 0..48, all less than 24 from the middle at 24
    assert assigned([0, 0, 48, 48]) == {64 + 4 * row + column: 0 for row in range(3) for column in range(3)}
    # the whole image: of 8, 24, 40 and 56 the middle at 32 has two less than 24 away
    assert assigned([0, 0, 64, 64]) == {64 + 4 * row + column: 0 for row in (1, 2) for column in (1, 2)}


def test_of_two_boxes_the_smaller_one_is_found():
    assert assigned([0, 0, 20, 20], [0, 0, 9, 9])[0] == 1
    assert assigned([0, 0, 9, 9], [0, 0, 20, 20])[0] == 0


def test_rows_that_only_fill_up_are_not_found():
    assert assigned([0, 0, 20, 20], labels=[-1]) == {}


def outputs_of(boxes_in_strides, score):
    """One class, all points at `score`, and these distances at point 0."""
    distances = torch.zeros(1, 4, 80)
    distances[0, :, 0] = torch.tensor(boxes_in_strides)
    return {"logits": torch.full((1, 1, 80), score), "distances": distances}


def test_the_loss_by_hand():
    targets = {"boxes": torch.tensor([[[0.0, 0.0, 8.0, 8.0]]]), "labels": torch.tensor([[0]])}
    # a box of 0..8 by 0..4: overlap 1/2, and nothing of the box around both is left empty
    loss = detection_loss(outputs_of([0.5, 0.5, 0.5, 0.0], 0.0), targets, POINTS)
    background = 79 * 0.5**2 * math.log(2)  # scores of 1/2 where 0 is right; at the point itself 1/2 is right
    assert loss.item() == pytest.approx(background + BOX_WEIGHT * (1 - 0.5), rel=1e-5)


def test_it_is_the_mean_over_the_points_that_find_a_box():
    boxes = torch.tensor([[[0.0, 0.0, 8.0, 8.0]]])
    one = {"boxes": boxes, "labels": torch.tensor([[0]])}
    outputs = outputs_of([0.5, 0.5, 0.5, 0.5], 0.0)
    twice = {name: value.repeat(2, *[1] * (value.dim() - 1)) for name, value in outputs.items()}
    both = {name: value.repeat(2, *[1] * (value.dim() - 1)) for name, value in one.items()}
    assert detection_loss(twice, both, POINTS).item() == pytest.approx(detection_loss(outputs, one, POINTS).item())


def test_images_without_boxes_have_a_loss_and_a_gradient():
    outputs = outputs_of([0.0] * 4, 0.0)
    outputs["logits"].requires_grad_()
    targets = {"boxes": torch.zeros(1, 1, 4), "labels": torch.full((1, 1), -1)}
    loss = detection_loss(outputs, targets, POINTS)
    loss.backward()
    assert loss.item() == pytest.approx(80 * 0.25 * math.log(2)) and (outputs["logits"].grad > 0).all()
