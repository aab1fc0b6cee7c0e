"""Pools in C: means and largest codes of windows, in one to three dimensions."""

import pytest

from qat.integer.values import Grid, float32

UNSIGNED = Grid(float32(0.02), 100, 0, 255)
SIGNED = Grid(float32(0.021), -5, -128, 127)
NARROW = Grid(float32(0.3), 2, 0, 15)
SIGNED_NARROW = Grid(float32(0.25), 1, -7, 7)


@pytest.mark.parametrize("source", [UNSIGNED, SIGNED, NARROW, SIGNED_NARROW])
def test_means_of_windows(assert_equal_in_both, source):
    pads = ((1, 1), (0, 1), (1, 0))

    def write(builder, x, y, z):
        return [
            builder.average_pool("one", x, (3,), UNSIGNED, stride=(2,), padding=((1, 1),)),
            builder.average_pool("two", y, (2, 3), UNSIGNED, stride=(1, 2), padding=((1, 0), (1, 1))),
            # a quarter of codes on one grid: many ties
            builder.average_pool("quarters", y, (2, 2), source, clamp=(source.zero_point, source.quant_max)),
            builder.average_pool("three", z, (2, 3, 2), SIGNED, padding=pads, stride=(1, 2, 2)),
        ]

    assert_equal_in_both(write, [(4, 9), (4, 6, 7), (4, 6, 7, 5)], [source] * 3)


@pytest.mark.parametrize("source", [UNSIGNED, SIGNED, NARROW, SIGNED_NARROW, Grid(1.0, 0, -30_000, 30_000)])
def test_largest_codes_of_windows(assert_equal_in_both, source):
    def write(builder, x, y, z):
        return [
            builder.max_pool("one", x, (2,), ceil_mode=True),
            builder.max_pool("two", y, (3, 2), (2, 2), ((1, 1), (1, 0)), ceil_mode=True),
            builder.max_pool("apart", y, (2, 2), (1, 1), dilation=(2, 1)),
            builder.max_pool("three", z, (2, 2, 2), padding=((1, 1), (0, 1), (1, 0)), ceil_mode=True),
            builder.max_pool("deep", z, (3, 2, 1), (1, 1, 1), dilation=(2, 1, 1)),
        ]

    assert_equal_in_both(write, [(4, 7), (4, 6, 7), (4, 6, 7, 5)], [source] * 3)
