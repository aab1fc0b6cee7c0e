import io

import matplotlib.image
import torch

from qat.report.figures.predictions import Box, images_with_boxes


def pixels(content):
    return matplotlib.image.imread(io.BytesIO(content), format="png")


def test_nothing_is_drawn_without_images():
    assert images_with_boxes([], []) is None


def test_images_fill_rows_of_six():
    images = torch.zeros(7, 3, 8, 8)
    one, two = (pixels(images_with_boxes(images[:count], [[]] * count)) for count in (6, 7))
    assert one.shape[1] == two.shape[1] and 1.8 < two.shape[0] / one.shape[0] < 2.2


def test_found_boxes_are_yellow_and_true_ones_white():
    images = torch.zeros(1, 3, 32, 32)
    plain, true, found = (
        pixels(images_with_boxes(images, [boxes]))[:, :, :3].reshape(-1, 3)
        for boxes in ([], [Box(4, 4, 20, 28)], [Box(4, 4, 20, 28, "ring 0.93")])
    )
    yellow = [((drawn[:, 0] > 0.9) & (drawn[:, 2] < 0.4)).sum() for drawn in (plain, true, found)]
    assert yellow[0] == yellow[1] == 0 and yellow[2] > 100
    assert (true.min(1) == 1).sum() > (plain.min(1) == 1).sum()


def test_equal_boxes_give_equal_bytes():
    images, boxes = torch.rand(2, 3, 16, 16), [[Box(1, 2, 9, 9, "cross 0.50")], [Box(0, 0, 16, 16)]]
    assert images_with_boxes(images, boxes) == images_with_boxes(images, boxes)
