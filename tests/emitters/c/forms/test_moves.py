"""Codes in another place, in C: views where strides say it, copies elsewhere."""

import pytest
import torch
from small_programs import random_weight

from qat.integer.values import Grid, IndexRange, float32

UNSIGNED = Grid(float32(0.02), 100, 0, 255)
GRIDS = [UNSIGNED, Grid(float32(0.021), -5, -128, 127), Grid(1.0, 4, 0, 60_000), Grid(1.0, 4, -300, 300), IndexRange(5)]


@pytest.mark.parametrize("source", GRIDS)
def test_every_move(assert_equal_in_both, source):
    def write(builder, x):
        turned = builder.transpose("turned", x, (0, 3, 1, 2))
        column = builder.reshape("column", x, (4, 1, 42))
        return [
            builder.take("some", x, 1, [3, 0, 0, 2]),
            builder.take("reversed", x, 2, [5, 4, 3, 2, 1, 0]),
            builder.take("rolled", x, 3, [4, 5, 6, 0, 1, 2, 3]),
            builder.take("last", x, 3, [6]),
            builder.take("same", x, 1, [2, 2, 2]),
            builder.take("turned some", turned, 2, [3, 0, 1]),
            builder.expand("wide", column, (4, 3, 42)),
            builder.concatenate("joined", (x, x), 2),
            builder.concatenate("turned joined", (turned, turned), 1),
            turned,
            builder.slice("cut", x, (1, 0, 2), (4, 6, 7), (1, 2, 3)),
            builder.pad("padded", x, ((0, 1), (2, 0), (1, 1))),
            builder.pad("turned padded", turned, ((0, 1), (2, 0), (1, 1))),
            builder.reshape("flat", turned, (168,)),
            builder.reshape("rows of turned", turned, (7, 24)),
            builder.reshape("cut rows", builder.slice("some rows", x, (0, 1, 0), (4, 5, 7)), (4, 28)),
            builder.reshape("reversed flat", builder.take("other", x, 3, [6, 5, 4, 3, 2, 1, 0]), (168,)),
            builder.reshape("wide flat", builder.expand("wider", column, (4, 2, 42)), (336,)),
        ]

    assert_equal_in_both(write, [(4, 6, 7)], [source])


def test_what_strides_say_costs_no_copy(assert_equal_in_both):
    """(channels, rows, columns) -> (rows, columns, channels) -> tokens is how a convolution leaves them anyway."""

    def write(builder, x):
        convolved = builder.conv("patches", x, random_weight((6, 3, 2, 2)), UNSIGNED, stride=(2, 2))
        tokens = builder.transpose("tokens", builder.reshape("places", convolved, (6, 16)), (0, 2, 1))
        return builder.linear("fc", tokens, random_weight((5, 6)), UNSIGNED)

    _, path = assert_equal_in_both(write, [(3, 8, 8)], [UNSIGNED])
    assert path.read_text().count("    copy_u8(") == 1  # of the plain input


@pytest.mark.parametrize("source", GRIDS)
def test_constants_are_joined_to_every_sample(assert_equal_in_both, source):
    def write(builder, x):
        first = builder.constant("class token", torch.tensor([[1, 2, 3]]), source)
        last = builder.constant("last", torch.tensor([[3, 2, 1], [0, 0, 1]]), source)
        return builder.concatenate("c", (first, x, last), 1)

    assert_equal_in_both(write, [(4, 3)], [source])


def test_an_input_is_an_output_and_a_value_two(tmp_path, assert_equal_in_both):
    def write(builder, x, y):
        negated = builder.negate("n", x)
        return x, negated, negated, builder.reshape("r", negated, (6,))

    assert_equal_in_both(write, [(2, 3), (4,)], [UNSIGNED, UNSIGNED])


def test_values_without_dimensions(assert_equal_in_both):
    def write(builder, x):
        total = builder.mean("m", x, (1, 2), UNSIGNED)
        return total, builder.add("twice", total, total, UNSIGNED)

    assert_equal_in_both(write, [(2, 3)], [UNSIGNED])
