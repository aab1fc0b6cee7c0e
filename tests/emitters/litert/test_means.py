"""Means and pools over many places: matrix products, since no kernel of a depthwise convolution is so large."""

from qat.emitters.litert import delegated_ops
from qat.integer.values import Grid, float32

OUTPUT = Grid(float32(0.005), 131, 0, 255)


def test_means_and_pools_over_all_places_of_a_large_input_are_matrix_products(export):
    for write in (
        lambda b, x: b.mean("m", x, (2, 3), OUTPUT),
        lambda b, x: b.sum("m", x, (2,), OUTPUT, keepdim=True),
        lambda b, x: b.average_pool("m", x, (27, 5), OUTPUT, clamp=(131, 255)),
    ):
        found = export(write, (6, 27, 5))
        assert found.differing() == 0
        assert "FULLY_CONNECTED" in found.kinds and delegated_ops(found.path)[1] == []


def test_a_pool_over_all_places_of_a_line_is_a_mean(export):
    found = export(lambda b, x: b.average_pool("m", x, (40,), OUTPUT), (6, 40))
    assert found.differing() == 0 and "FULLY_CONNECTED" in found.kinds
