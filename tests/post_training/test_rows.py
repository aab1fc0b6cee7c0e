"""Layers as products of matrices: what torch computes for every kind of layer."""

import pytest
import torch
import torch.nn.functional as F

from qat.post_training.rows import Geometry

GENERATOR = torch.Generator().manual_seed(0)

CONVOLUTIONS = [
    (F.conv1d, (6, 4, 3), {"padding": 1}),
    (F.conv2d, (6, 4, 3, 2), {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2)}),
    (F.conv2d, (6, 2, 3, 3), {"groups": 2, "padding": "same"}),
    (F.conv2d, (4, 1, 3, 3), {"groups": 4, "padding": "valid"}),
    (F.conv3d, (2, 4, 1, 2, 3), {"stride": 2}),
    (F.conv_transpose1d, (4, 3, 4), {"stride": 3, "padding": 1, "output_padding": 2}),
    (F.conv_transpose2d, (4, 3, 2, 3), {"stride": 2, "padding": (0, 2), "dilation": (1, 2), "groups": 2}),
    (F.conv_transpose2d, (4, 1, 2, 2), {"stride": 2, "groups": 4}),
    (F.conv_transpose3d, (4, 2, 2, 2, 2), {}),
]


@pytest.mark.parametrize(("function", "shape", "settings"), CONVOLUTIONS)
def test_rows_times_the_matrix_are_the_outputs_of_a_convolution(function, shape, settings):
    weight = torch.randn(shape, generator=GENERATOR)
    x = torch.randn(2, 4, *range(5, 3 + len(shape)), generator=GENERATOR)
    geometry = Geometry.of(function.__name__, (x, weight), settings, weight)
    expected = function(x, weight, **settings)
    outputs = geometry.rows(x) @ geometry.matrix(weight).transpose(1, 2)  # (groups, N and positions, O of a group)
    arranged = expected.flatten(2).transpose(0, 1).flatten(1)  # (O, N and positions)
    torch.testing.assert_close(outputs.transpose(1, 2).flatten(0, 1), arranged)
    assert torch.equal(geometry.weight(geometry.matrix(weight), weight), weight)


def test_a_convolution_of_one_image_without_a_batch():
    weight, x = torch.ones(1, 1, 2), torch.tensor([[1.0, 2.0, 5.0]])
    assert Geometry.of("conv1d", (x, weight), {}, weight).rows(x).tolist() == [[[1.0, 2.0], [2.0, 5.0]]]


def test_a_linear_layer_and_a_product_store_their_matrix_either_way():
    weight, x = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), torch.arange(24.0).view(2, 4, 3)
    linear, product = (Geometry.of(name, (x, weight), {}, weight) for name in ("linear", "matmul"))
    assert linear.matrix(weight).tolist() == [[[1, 2, 3], [4, 5, 6]]]
    assert product.matrix(weight).tolist() == [[[1, 4], [2, 5], [3, 6]]]
    assert torch.equal(product.weight(product.matrix(weight), weight), weight)
    assert linear.rows(x).shape == (1, 8, 3)
