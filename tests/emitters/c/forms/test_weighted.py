"""Convolutions and linear layers in C: every code of the interpreter, at every width of weights."""

import pytest
import torch
from small_programs import random_weight

from qat.emitters import c
from qat.errors import ExportError
from qat.integer.builder import ProgramBuilder
from qat.integer.values import Grid, Weight, WeightGrid, float32

UNSIGNED = Grid(float32(0.02), 100, 0, 255)
SIGNED = Grid(float32(0.021), -5, -128, 127)
SIGNED_NARROW = Grid(float32(0.25), 1, -7, 7)
WIDE = Grid(float32(0.02 / 300), 30_000, 0, 65_535)
GRIDS = [UNSIGNED, Grid(float32(0.013), 0, 0, 255), SIGNED, Grid(float32(0.3), 2, 0, 15), SIGNED_NARROW]
WEIGHT_GRIDS = [(2, 64, 32), (2, 1, 0), (3, 32, 0), (4, 16, 0), (4, 1, 0), (5, 8, 0), (6, 4, 0), (7, 2, 0), (8, 1, 0)]


@pytest.mark.parametrize("source", GRIDS)
def test_convolutions_of_every_width_stride_and_padding(assert_equal_in_both, source):
    bias = torch.arange(6, dtype=torch.int32) * 50 - 100
    targets = [UNSIGNED, SIGNED, SIGNED_NARROW]

    def write(builder, x):
        for place, weight_grid in enumerate(WEIGHT_GRIDS):
            weight = random_weight((6, 4, 3, 3), *weight_grid)
            pads = ((1, 1), (2, 0)) if place % 2 else ((0, 0), (0, 3))
            target = targets[place % 3]
            clamp = (target.zero_point, target.quant_max - 2) if place % 2 else None
            yield builder.conv(
                f"c{place}", x, weight, target, bias=bias, padding=pads, stride=(1, 1 + place % 2), clamp=clamp
            )

    assert_equal_in_both(lambda builder, x: list(write(builder, x)), [(4, 7, 8)], [source])


def test_one_two_and_three_dimensions_with_dilation(assert_equal_in_both):
    def write(builder, x, y, z):
        return [
            builder.conv("one", x, random_weight((5, 3, 3)), SIGNED, dilation=(2,), padding=((2, 1),)),
            builder.conv(
                "two", y, random_weight((5, 3, 2, 3), 4, 16), SIGNED, dilation=(3, 2), padding=((2, 1), (0, 4))
            ),
            builder.conv(
                "three", z, random_weight((6, 2, 3, 2, 1)), UNSIGNED, padding=((1, 1), (0, 1), (1, 0)), stride=(1, 2, 1)
            ),
        ]

    assert_equal_in_both(write, [(3, 20), (3, 8, 9), (2, 6, 7, 5)], [UNSIGNED, SIGNED, UNSIGNED])


@pytest.mark.parametrize("weight_grid", [(8, 1, 0), (4, 16, 0), (3, 32, 0), (2, 64, 32)])
def test_groups_and_single_channels(assert_equal_in_both, weight_grid):
    def write(builder, x):
        pads = ((1, 1), (2, 0))
        return [
            builder.conv("halves", x, random_weight((16, 4, 3, 3), *weight_grid), SIGNED, groups=2, padding=pads),
            builder.conv("each", x, random_weight((8, 1, 3, 3), *weight_grid), UNSIGNED, groups=8, padding=pads),
            builder.conv(
                "strided",
                x,
                random_weight((8, 1, 3, 2), *weight_grid),
                UNSIGNED,
                groups=8,
                stride=(2, 3),
                dilation=(2, 1),
            ),
            builder.conv("twice", x, random_weight((16, 1, 3, 3), *weight_grid), UNSIGNED, groups=8),
            builder.conv("points", x, random_weight((5, 8, 1, 1), *weight_grid), UNSIGNED),
            builder.conv("every second", x, random_weight((5, 8, 1, 1), *weight_grid), UNSIGNED, stride=(2, 2)),
        ]

    assert_equal_in_both(write, [(8, 6, 6)], [SIGNED])


@pytest.mark.parametrize("weight_grid", WEIGHT_GRIDS)
def test_linear_layers_of_any_rank(assert_equal_in_both, weight_grid):
    bias = torch.arange(21, dtype=torch.int32) * 50 - 100

    def write(builder, *sources):
        for place, source in enumerate(sources):
            size = builder.shape(source)[-1]
            weight = random_weight((21, size), *weight_grid)
            yield builder.linear(f"fc{place}", source, weight, UNSIGNED, bias=bias, clamp=(100, 250))

    shapes = [(8,), (1,), (3, 8), (2, 3, 37), (2, 1, 2, 5)]
    grids = [UNSIGNED, SIGNED, SIGNED, UNSIGNED, SIGNED_NARROW]
    assert_equal_in_both(lambda builder, *sources: list(write(builder, *sources)), shapes, grids)


def test_a_linear_layer_behind_a_transposition(assert_equal_in_both):
    def write(builder, x):
        return builder.linear("fc", builder.transpose("t", x, (0, 2, 3, 1)), random_weight((5, 4)), UNSIGNED)

    assert_equal_in_both(write, [(4, 3, 2)], [UNSIGNED])


@pytest.mark.parametrize("factor", [2.0**-10, 2.0**-11 * 3])
def test_scales_that_meet_ties_in_every_second_code(assert_equal_in_both, factor):
    """A power of two divides many sums in halves, which go to the even code; no single rounding does that."""
    source, target = Grid(1.0, 3, 0, 255), Grid(1.0, 7, 0, 255)
    codes = torch.randint(-128, 128, (6, 9), generator=torch.Generator().manual_seed(0)).to(torch.int8)
    scale = torch.tensor([factor, 0.001, factor * 4, 0.0123, factor * 16, factor])

    def write(builder, x):
        return builder.linear("fc", x, Weight(codes, WeightGrid(8), scale.float()), target)

    _, path = assert_equal_in_both(write, [(40, 9)], [source])
    assert "rescale_as_float_u8" in path.read_text()


def test_wide_codes_are_made_and_read(assert_equal_in_both):
    signed = Grid(float32(0.0001), 11, -32_767, 32_767)

    def write(builder, x):
        wide = builder.linear("fc", x, random_weight((6, 8)), WIDE)
        return (
            wide,
            builder.linear("wide", wide, random_weight((5, 6), seed=1), UNSIGNED),
            builder.linear("signed", x, random_weight((4, 8), seed=2), signed),
        )

    assert_equal_in_both(write, [(8,)], [SIGNED])


def test_sums_that_nearly_leave_int32(assert_equal_in_both):
    codes = torch.full((1, 8), 127, dtype=torch.int8)
    weight = Weight(codes, WeightGrid(8), torch.tensor([float32(1e-4)]))
    bias = torch.tensor([2**31 - 1 - 8 * 127 * 255], dtype=torch.int32)
    targets = Grid(float32(1000.0), 0, 0, 255), Grid(float32(5.0), 0, 0, 65_535)

    def write(builder, x):
        return [builder.linear(f"fc{place}", x, weight, target, bias=bias) for place, target in enumerate(targets)]

    assert_equal_in_both(write, [(8,)], [Grid(1.0, 0, 0, 255)])


def test_a_bias_that_leaves_int32_without_its_zero_point_is_refused(tmp_path):
    builder = ProgramBuilder()
    weight = Weight(torch.full((1, 8), 127, dtype=torch.int8), WeightGrid(8), torch.tensor([0.5]))
    bias = torch.tensor([-(2**31) + 1 + 8 * 127 * 128], dtype=torch.int32)
    builder.output(
        "y", builder.linear("fc", builder.input("x", (8,), Grid(1.0, 128, 0, 255)), weight, UNSIGNED, bias=bias)
    )
    # 2^31 - 1, without the zero point, and 8 * 127 * 255 of codes that are all 255
    with pytest.raises(ExportError, match="'fc' .* adds up to 2147742727 before its zero point is taken off"):
        c.emit(builder.build(), tmp_path / "network.c")


def test_a_collapsed_wide_output_is_refused(tmp_path):
    builder = ProgramBuilder()
    weight = Weight(torch.ones(1, 1, dtype=torch.int8), WeightGrid(8), torch.tensor([1.0]))
    tiny = Grid(float32(2.0**-24), 0, 0, 65_535)
    builder.output("y", builder.linear("fc", builder.input("x", (1,), Grid(1.0, 0, 0, 255)), weight, tiny))
    with pytest.raises(ExportError, match="Linear 'fc' has an output of steps 2.24 times finer than its sums"):
        c.emit(builder.build(), tmp_path / "network.c")
    assert not list(tmp_path.iterdir())


def test_a_narrow_output_of_steps_finer_than_its_sums_saturates(assert_equal_in_both):
    weight = Weight(torch.tensor([[1, -1]], dtype=torch.int8).T.contiguous(), WeightGrid(8), torch.tensor([1.0, 1.0]))
    tiny = Grid(float32(2.0**-26), 3, 0, 255)
    assert_equal_in_both(lambda b, x: b.linear("fc", x, weight, tiny), [(1,)], [Grid(1.0, 0, 0, 255)])
