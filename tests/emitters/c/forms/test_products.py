"""Matrix products of two values in C."""

import pytest
import torch

from qat.integer.values import Grid, float32

GRIDS = [
    Grid(float32(0.02), 100, 0, 255),
    Grid(float32(0.013), 0, 0, 255),
    Grid(float32(0.021), -5, -128, 127),
    Grid(float32(0.3), 0, 0, 15),
    Grid(float32(0.0001), 11, -3000, 3000),
]
OUT = Grid(float32(0.3), 120, 0, 255)


@pytest.mark.parametrize("first", GRIDS)
def test_every_pair_of_grids(assert_equal_in_both, first):
    def write(builder, x, *others):
        for place, other in enumerate(others):
            yield builder.matmul(f"m{place}", x, other, OUT, factor=0.2, clamp=(20, 250))

    assert_equal_in_both(
        lambda builder, *sources: list(write(builder, *sources)), [(3, 5, 16)] + [(3, 16, 7)] * 5, [first, *GRIDS]
    )


@pytest.mark.parametrize(
    "shapes",
    [
        [(5, 16), (16, 7)],
        [(1, 1), (1, 1)],
        [(1, 300), (300, 1)],
        [(4, 5, 16), (1, 16, 7)],
        [(2, 1, 5, 4), (2, 3, 4, 7)],
    ],
)
def test_shapes_that_broadcast(assert_equal_in_both, shapes):
    assert_equal_in_both(lambda b, x, y: b.matmul("m", x, y, OUT), shapes, [GRIDS[2], GRIDS[1]])


def test_transposed_operands_are_read_where_they_lie(assert_equal_in_both):
    def write(builder, x, y):
        turned = [builder.transpose(f"t{name}", name, (0, 1, 3, 2)) for name in (x, y)]
        return [
            builder.matmul("second", x, turned[1], OUT, factor=0.3),
            builder.matmul("first", turned[0], y, OUT, factor=0.3),
            builder.matmul("both", turned[0], builder.transpose("t", y, (0, 1, 3, 2)), OUT, factor=0.3),
        ]

    _, path = assert_equal_in_both(write, [(2, 6, 6), (2, 6, 6)], [GRIDS[0], GRIDS[2]])
    assert "copy" not in path.read_text()


def test_constants_on_either_side(assert_equal_in_both):
    codes = torch.arange(2 * 6 * 6).reshape(2, 6, 6) % 200

    def write(builder, x):
        constant = builder.constant("k", codes, GRIDS[0])
        return builder.matmul("right", x, constant, OUT), builder.matmul("left", constant, x, OUT)

    assert_equal_in_both(write, [(2, 6, 6)], [GRIDS[2]])


def test_products_of_ties(assert_equal_in_both):
    halves = Grid(0.5, 3, 0, 255)
    _, path = assert_equal_in_both(
        lambda b, x, y: b.matmul("m", x, y, Grid(128.0, 9, 0, 255)), [(9, 8), (8, 30)], [halves, Grid(0.5, 200, 0, 255)]
    )
    assert "matmul_as_float" in path.read_text()
