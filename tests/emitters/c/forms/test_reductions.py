"""Means, sums and largest codes over dimensions in C, whatever the order in which they lie."""

import pytest
from small_programs import random_weight

from qat.integer.values import Grid, IndexRange, float32

UNSIGNED = Grid(float32(0.02), 100, 0, 255)
SIGNED = Grid(float32(0.021), -5, -128, 127)
NARROW = Grid(float32(0.3), 2, 0, 15)
WIDE = Grid(float32(0.0001), 11, -32_767, 32_767)
EVERY = [(1,), (2,), (3,), (2, 3), (1, 3), (1, 2, 3)]


@pytest.mark.parametrize("source", [UNSIGNED, SIGNED, NARROW, Grid(float32(0.25), 1, -7, 7), WIDE])
def test_means_and_sums(assert_equal_in_both, source):
    loud = Grid(float32(0.5), 100, 0, 255)

    def write(builder, x):
        values = {"plain": x, "last": builder.conv("conv", x, random_weight((4, 4, 1, 1)), SIGNED)}
        for name, value in values.items():
            for dims in EVERY:
                for keepdim in (False, True):
                    label = f"{name}{''.join(map(str, dims))}{keepdim}"
                    yield builder.mean(f"mean {label}", value, dims, SIGNED, keepdim=keepdim)
                    yield builder.sum(f"sum {label}", value, dims, loud, keepdim=keepdim, clamp=(90, 240))

    assert_equal_in_both(lambda builder, x: list(write(builder, x)), [(4, 6, 7)], [source])


@pytest.mark.parametrize("source", [UNSIGNED, SIGNED, WIDE, IndexRange(70_000)])
def test_largest_codes(assert_equal_in_both, source):
    def write(builder, x):
        turned = builder.transpose("turned", x, (0, 3, 1, 2))
        for dims in EVERY:
            for keepdim in (False, True):
                label = f"{''.join(map(str, dims))}{keepdim}"
                yield builder.max(f"plain {label}", x, dims, keepdim=keepdim)
                yield builder.max(f"turned {label}", turned, dims, keepdim=keepdim)

    assert_equal_in_both(lambda builder, x: list(write(builder, x)), [(4, 6, 7)], [source])


def test_a_mean_of_ties(assert_equal_in_both):
    """The mean of 64 codes on one grid meets a tie for every 64th sum."""
    _, path = assert_equal_in_both(lambda b, x: b.mean("m", x, (2,), UNSIGNED), [(300, 64)], [UNSIGNED])
    assert "sum_up_as_float_u8_u8" in path.read_text()
