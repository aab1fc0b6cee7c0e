"""Each operation, in a file that gives just the program's codes: `Exported.differing` counts those that differ."""

import math

import pytest
import torch
import torch.nn.functional as F

from qat.emitters.litert import operations, weight_types
from qat.integer.operations import table_codes
from qat.integer.values import Grid, IndexRange, Weight, WeightGrid, float32

BYTE, NIBBLE = Grid(float32(0.02), 117, 0, 255), Grid(float32(0.3), 0, 0, 15)
OUTPUT = Grid(float32(0.05), 131, 0, 255)
SIGNED = Grid(float32(0.03), -7, -128, 127)
MIDDLE, CENTERED = Grid(float32(0.3), 5, 0, 15), Grid(float32(0.3), 0, -8, 7)


def weight(*shape, bits=8, step=1, offset=0):
    half = 2 ** (bits - 1)
    codes = torch.randint(-half + (offset == 0), half, shape, dtype=torch.int8)
    scale = torch.rand(shape[0]) * 0.01 + 0.003
    return Weight(codes, WeightGrid(bits, step, offset), (scale * 2 ** (8 - bits) / step).float())


def bias(count):
    return torch.randint(-900, 900, (count,), dtype=torch.int32)


def plain(kinds):
    """The operators between the edges, without those that turn the edges' layout."""
    return [kind for kind in kinds if kind not in ("TRANSPOSE", "QUANTIZE", "DEQUANTIZE")]


@pytest.mark.parametrize(
    ("settings", "kinds"),
    [
        ({}, ["CONV_2D"]),
        ({"padding": ((1, 1), (1, 1))}, ["CONV_2D"]),
        ({"padding": ((1, 1), (1, 1)), "stride": (2, 2)}, ["RESHAPE", "PAD", "CONV_2D"]),
        ({"padding": ((0, 1), (0, 1)), "stride": (2, 2)}, ["RESHAPE", "CONV_2D"]),
        ({"padding": ((2, 2), (2, 2)), "dilation": (2, 2)}, ["CONV_2D"]),
        ({"padding": ((2, 0), (0, 1)), "stride": (1, 2)}, ["RESHAPE", "PAD", "CONV_2D"]),
        ({"clamp": (131, 255)}, ["CONV_2D"]),
    ],
)
def test_convolutions(export, settings, kinds):
    found = export(lambda b, x: b.conv("c", x, weight(5, 4, 3, 3), OUTPUT, bias=bias(5), **settings))
    assert found.differing() == 0
    assert plain(found.kinds) == kinds


@pytest.mark.parametrize(("shape", "groups", "kind"), [((4, 1, 3, 3), 4, "DEPTHWISE_CONV_2D"),
    ((8, 1, 3, 3), 4, "DEPTHWISE_CONV_2D"), ((6, 2, 3, 3), 2, "CONV_2D")])  # fmt: skip
@pytest.mark.parametrize("stride", [(1, 1), (2, 2)])
def test_grouped_convolutions(export, shape, groups, kind, stride):
    one = ((1, 1), (1, 1))
    found = export(lambda b, x: b.conv("c", x, weight(*shape), OUTPUT, padding=one, stride=stride, groups=groups))
    assert found.differing() == 0
    assert plain(found.kinds)[-1] == kind


def test_convolutions_over_one_dimension(export):
    found = export(
        lambda b, x: b.conv("c", x, weight(5, 4, 3), OUTPUT, bias=bias(5), padding=((1, 1),), stride=(2,)), (4, 20)
    )
    assert found.differing() == 0


@pytest.mark.parametrize(
    ("grid", "clamp"),
    [
        (NIBBLE, (0, 15)), (NIBBLE, (0, 9)), (MIDDLE, None), (MIDDLE, (5, 11)), (CENTERED, None), (CENTERED, (-3, 5)),
        (Grid(float32(0.5), 1, 0, 3), None), (OUTPUT, (131, 251)), (OUTPUT, (140, 200)), (SIGNED, (-7, 127)),
        (Grid(float32(6 / 200), 0, 0, 255), (0, 200)),
    ],
)  # fmt: skip
def test_every_grid_and_clamp(export, grid, clamp):
    found = export(lambda b, x: b.conv("c", x, weight(5, 4, 3, 3), grid, bias=bias(5), clamp=clamp))
    assert found.differing() == 0


@pytest.mark.parametrize("source", [NIBBLE, MIDDLE, CENTERED, SIGNED])
def test_every_grid_of_an_input(export, source):
    one = ((1, 1), (1, 1))
    assert export(lambda b, x: b.conv("c", x, weight(5, 4, 3, 3), OUTPUT, padding=one), grid=source).differing() == 0


@pytest.mark.parametrize(
    ("bits", "step", "offset", "width"),
    [(4, 16, 0, "int4"), (3, 32, 0, "int4"), (2, 64, 32, "int4"), (2, 64, 0, "int2")],
)
def test_narrow_weights_of_a_linear_layer_take_their_width(export, bits, step, offset, width):
    made = weight(24, 40, bits=bits, step=step, offset=offset)
    found = export(lambda b, x: b.linear("fc", x, made, OUTPUT, bias=bias(24)), (40,))
    assert found.differing() == 0
    assert weight_types(found.path)["fc/weight"] == width
    (layer,) = (each for each in operations(found.path) if each.kind == "FULLY_CONNECTED")
    assert layer.bytes == 24 * 40 * int(width.removeprefix("int")) // 8 + 4 * 24


@pytest.mark.parametrize(("size", "stride", "padding", "dilation"), [
    ((3, 3), (1, 1), (1, 1), (1, 1)), ((3, 3), (2, 2), (1, 1), (1, 1)), ((1, 1), (1, 1), (0, 0), (1, 1)),
    ((1, 1), (2, 2), (0, 0), (1, 1)), ((2, 3), (1, 2), (0, 1), (1, 1)), ((3, 3), (1, 1), (2, 2), (2, 2)),
])  # fmt: skip
def test_narrow_weights_of_a_convolution_take_half_a_byte_where_that_saves(export, size, stride, padding, dilation):
    made = weight(80, 64, *size, bits=4, step=16)
    pads = tuple((amount, amount) for amount in padding)
    settings = dict(stride=stride, padding=pads, dilation=dilation)
    found = export(lambda b, x: b.conv("c", x, made, OUTPUT, bias=bias(80), **settings), (64, 7, 6))
    assert found.differing((1, 3)) == 0
    assert weight_types(found.path)["c/weight"] == "int4"
    (layer,) = (each for each in operations(found.path) if each.kind == "FULLY_CONNECTED")
    assert layer.bytes == 80 * 64 * math.prod(size) // 2 + 4 * 80


def test_narrow_weights_of_a_small_convolution_stay_in_int8(export):
    found = export(lambda b, x: b.conv("c", x, weight(5, 4, 3, 3, bits=4, step=16), OUTPUT))
    assert weight_types(found.path)["c/weight"] == "int8" and found.differing() == 0


def test_linear_layers_over_more_dimensions(export):
    assert export(lambda b, x: b.linear("fc", x, weight(5, 6), OUTPUT, bias=bias(5))).differing() == 0


def test_features_of_a_picture_are_numbered_anew_for_the_layer_that_reads_them(export):
    def write(b, x):
        y = b.conv("c", x, weight(5, 4, 3, 3), OUTPUT)
        return b.linear("fc", b.reshape("r", y, (80,)), weight(3, 80), OUTPUT)

    found = export(write)
    assert found.differing() == 0
    assert found.kinds == ["QUANTIZE", "TRANSPOSE", "CONV_2D", "RESHAPE", "FULLY_CONNECTED", "DEQUANTIZE"]


@pytest.mark.parametrize("grids", [(BYTE, OUTPUT), (NIBBLE, BYTE), (SIGNED, NIBBLE)])
@pytest.mark.parametrize("other", [(4, 6, 6), (4, 1, 1), (1, 6, 6)])
def test_sums_and_products(export, grids, other):
    source, target = grids
    extra = {"z": (other, Grid(float32(0.011), 90, 0, 255))}
    assert export(lambda b, x: b.add("s", x, "z", target), grid=source, extra=extra).differing() == 0
    product = Grid(float32(0.03), 100, 0, 255)
    assert export(lambda b, x: b.mul("p", x, "z", product), grid=source, extra=extra).differing() == 0


def test_sums_and_products_with_constants(export):
    codes = torch.randint(0, 256, (4, 1, 1))
    for write in (
        lambda b, x: b.add("s", x, b.constant("k", codes, OUTPUT), BYTE, clamp=(117, 255)),
        lambda b, x: b.mul("p", x, b.constant("k", codes, OUTPUT), OUTPUT),
    ):
        assert export(write).differing() == 0


@pytest.mark.parametrize("factor", [1.0, -1.7, 0.013])
def test_another_grid(export, factor):
    target = Grid(float32(0.02 * abs(factor) * 1.3), 99, 0, 255)
    assert export(lambda b, x: b.requantize("r", x, target, factor=factor)).differing() == 0


@pytest.mark.parametrize("clamp", [(117, 255), (60, 130), (0, 130), (120, 140)])
def test_a_clamp_alone(export, clamp):
    assert export(lambda b, x: b.requantize("r", x, BYTE, clamp=clamp)).differing() == 0


def test_the_negative(export):
    assert export(lambda b, x: b.negate("n", x)).differing() == 0
    assert export(lambda b, x: b.negate("n", x), grid=NIBBLE).differing() == 0


FUNCTIONS = {
    "LOGISTIC": torch.sigmoid, "TANH": torch.tanh, "GELU": F.gelu, "ELU": F.elu, "GATHER": F.silu,
}  # fmt: skip


@pytest.mark.parametrize(("kind", "function"), FUNCTIONS.items())
def test_functions_have_their_own_kernel_where_it_gives_the_same_codes(export, kind, function):
    codes = torch.arange(256, dtype=torch.float64)
    points = function((codes - BYTE.zero_point) * BYTE.scale)
    lowest = min(points.min().item(), 0.0)
    scale = float32((points.max().item() - lowest) / 255)
    target = Grid(scale, round(-lowest / scale), 0, 255)
    found = export(lambda b, x: b.table("t", x, table_codes(points, target), target))
    assert found.differing() == 0
    assert kind in found.kinds


def test_any_function_is_looked_up(export):
    def write(grid, target):
        count = grid.quant_max - grid.quant_min + 1
        codes = torch.randint(target.quant_min, target.quant_max + 1, (count,)).to(target.dtype)
        return lambda b, x: b.table("t", x, codes, target)

    for grid, target in ((BYTE, OUTPUT), (SIGNED, NIBBLE), (NIBBLE, SIGNED), (Grid(1.0, 3, -8, 7), BYTE)):
        found = export(write(grid, target), grid=grid)
        assert found.differing() == 0
        assert ["BITCAST", "CAST", "GATHER"] == plain(found.kinds)


def test_a_table_for_each_channel(export):
    codes = torch.randint(0, 256, (4, 256), dtype=torch.uint8)

    def write(b, x):
        return b.conv("c", b.table("t", x, codes, OUTPUT), weight(5, 4, 3, 3), OUTPUT)

    assert export(write).differing() == 0


@pytest.mark.parametrize("settings", [{}, {"stride": (1, 1)}, {"padding": ((1, 1), (1, 1))}])
def test_average_pools(export, settings):
    found = export(lambda b, x: b.average_pool("a", x, (3, 3), Grid(float32(0.017), 120, 0, 255), **settings))
    assert found.differing() == 0


@pytest.mark.parametrize("dims", [(2, 3), (1,), (2,), (3,), (1, 2, 3), (1, 3)])
@pytest.mark.parametrize("keepdim", [False, True])
def test_means_and_sums(export, dims, keepdim):
    for method, target in (("mean", Grid(float32(0.013), 120, 0, 255)), ("sum", Grid(float32(0.4), 120, 0, 255))):
        assert export(lambda b, x: getattr(b, method)("m", x, dims, target, keepdim=keepdim)).differing() == 0  # noqa: B023


def test_means_behind_a_convolution(export):
    def write(b, x):
        return b.mean("m", b.conv("c", x, weight(5, 4, 3, 3), OUTPUT, clamp=(131, 255)), (2, 3), OUTPUT)

    found = export(write)
    assert found.differing() == 0
    assert plain(found.kinds) == ["CONV_2D", "RESHAPE", "DEPTHWISE_CONV_2D", "RESHAPE"]


@pytest.mark.parametrize(
    ("settings", "kinds"),
    [
        ({}, ["MAX_POOL_2D"]),
        ({"stride": (1, 1), "padding": ((1, 1), (1, 1))}, ["MAX_POOL_2D"]),
        ({"stride": (2, 2), "padding": ((1, 1), (1, 1))}, ["PADV2", "MAX_POOL_2D"]),
        ({"stride": (2, 2), "ceil_mode": True}, ["MAX_POOL_2D"]),
    ],
)
def test_max_pools(export, settings, kinds):
    for grid in (BYTE, SIGNED, NIBBLE):
        found = export(lambda b, x: b.max_pool("m", x, (3, 3), **settings), (4, 6, 6), grid)
        assert found.differing() == 0
    assert plain(found.kinds) == kinds


def test_max_pools_over_one_dimension(export):
    assert export(lambda b, x: b.max_pool("m", x, (3,), padding=((1, 1),)), (4, 12)).differing() == 0


def test_the_largest_and_where_it_lies(export):
    assert export(lambda b, x: b.max("m", x, (2, 3))).differing() == 0
    for keepdim in (False, True):
        assert export(lambda b, x: b.arg_max("m", x, 1, keepdim=keepdim), (7, 3, 2)).differing() == 0  # noqa: B023


def test_moves(export):
    for write in (
        lambda b, x: b.concatenate("c", (x, b.constant("k", torch.randint(0, 256, (2, 6, 6)), BYTE), x)[::2], 1),
        lambda b, x: b.transpose("t", x, (0, 3, 1, 2)),
        lambda b, x: b.reshape("r", x, (6, 24)),
        lambda b, x: b.slice("s", x, (1, 0, 2), (3, 6, 5)),
        lambda b, x: b.slice("s", x, (0, 1, 0), (4, 6, 6), (1, 2, 3)),
        lambda b, x: b.pad("p", x, ((1, 0), (0, 2), (1, 1))),
        lambda b, x: b.take("t", x, 2, [5, 0, 0, 3]),
        lambda b, x: b.expand("e", b.max("m", x, (1,), keepdim=True), (3, 6, 6)),
    ):
        assert export(write).differing() == 0
        assert export(write, codes=True).differing() == 0


def test_moves_behind_windows_keep_their_layout(export):
    def write(b, x):
        y = b.conv("c", x, weight(4, 4, 3, 3), OUTPUT)
        parts = [b.slice(name, y, (begin, 0, 0), (begin + 2, 4, 4)) for name, begin in (("s", 0), ("t", 2))]
        joined = b.concatenate("j", (*parts[::-1], y), 1)
        return b.conv("d", b.pad("p", joined, ((0, 0), (1, 1), (1, 1))), weight(3, 8, 3, 3), OUTPUT)

    found = export(write)
    assert found.differing() == 0
    assert found.kinds.count("TRANSPOSE") == 2  # of the input and of the output


def test_choices_by_a_mask(export):
    mask = torch.tensor([[[0, 1, 1, 0, 0, 1]]])
    one = Grid(1.0, 0, 0, 1)
    extra = {"z": ((4, 6, 6), BYTE), "m": ((1, 6, 1), one)}
    assert export(lambda b, x: b.select("s", b.constant("k", mask, one), x, "z"), extra=extra).differing() == 0
    assert export(lambda b, x: b.select("s", "m", x, "z"), extra=extra).differing() == 0


@pytest.mark.parametrize("first", [False, True])
def test_products_with_a_constant_matrix(export, first):
    codes = torch.tensor([[0, 32, 96, 128, 64, 0], [128, 0, 0, 0, 32, 96]])
    grid = Grid(0.0078125, 0, 0, 255)

    def write(b, x):
        if first:
            return b.matmul("m", b.constant("k", codes[None], grid), x, OUTPUT)
        return b.matmul("m", x, b.constant("k", codes.T[None], grid), OUTPUT, factor=0.7)

    found = export(write)
    assert found.differing() == 0 and "FULLY_CONNECTED" in found.kinds


def test_embeddings(export):
    table = Weight(torch.randint(-128, 128, (10, 6), dtype=torch.int8), WeightGrid(8), torch.full((10,), 0.02))

    def write(b, x):
        return b.linear("fc", b.embedding("e", x, table), weight(5, 6), OUTPUT)

    assert export(write, (7,), IndexRange(10)).differing() == 0


@pytest.mark.parametrize(("kernel", "stride", "pads"), [
    ((2, 2), (2, 2), ((1, 0), (1, 0))), ((3, 3), (2, 2), ((1, 1), (1, 1))), ((4, 4), (2, 2), ((2, 1), (2, 1))),
])  # fmt: skip
def test_transposed_convolutions_have_their_own_kernel(export, kernel, stride, pads):
    def write(b, x):
        apart = b.reshape("apart", x, (4, 6, 1, 6, 1))
        zeros = b.pad("zeros", apart, ((0, 0), (0, 0), (0, stride[0] - 1), (0, 0), (0, stride[1] - 1)))
        together = b.reshape("together", zeros, (4, 6 * stride[0], 6 * stride[1]))
        return b.conv("c", together, weight(5, 4, *kernel), OUTPUT, bias=bias(5), padding=pads, clamp=(131, 255))

    found = export(write)
    assert found.differing() == 0
    assert "TRANSPOSE_CONV" in found.kinds and "PAD" not in found.kinds


@pytest.mark.parametrize(("shape", "dim"), [((10,), 1), ((4, 6, 6), 1), ((3, 40), 2), ((2, 5, 7), 2)])
@pytest.mark.parametrize("source", [BYTE, Grid(float32(0.11), -3, -128, 127), NIBBLE])
def test_softmax_is_that_of_the_program(export, shape, dim, source):
    for target in (
        Grid(float32(1 / 255), 0, 0, 255),
        Grid(float32(1 / 128), 10, 0, 255),
        Grid(float32(1 / 15), 0, 0, 15),
    ):
        found = export(lambda b, x: b.softmax("s", x, dim, target), shape, source)  # noqa: B023
        assert found.differing((1, 65)) == 0
    assert "SOFTMAX" not in found.kinds


def test_softmax_behind_a_convolution_runs_over_channels(export):
    def write(b, x):
        return b.softmax("s", b.conv("c", x, weight(5, 4, 3, 3), OUTPUT), 1, Grid(float32(1 / 255), 0, 0, 255))

    found = export(write)
    # one for each edge, and one that takes sums apart
    assert found.differing() == 0 and found.kinds.count("TRANSPOSE") == 3


@pytest.mark.parametrize(("shape", "other"), [((3, 5, 8), (3, 8, 6)), ((1, 5, 8), (3, 8, 1)), ((1, 8), (8, 6)),
    ((2, 1, 8), (1, 8, 6))])  # fmt: skip
@pytest.mark.parametrize("grids", [(BYTE, SIGNED), (NIBBLE, BYTE), (Grid(float32(0.1), 0, -128, 127),) * 2])
def test_products_of_two_values(export, shape, other, grids):
    for target, factor in ((Grid(float32(0.11), 120, 0, 255), 1.0), (NIBBLE, 0.35)):
        found = export(
            lambda b, x: b.matmul("m", x, "z", target, factor=factor),  # noqa: B023
            shape, grids[0], extra={"z": (other, grids[1])},
        )  # fmt: skip
        assert found.differing() == 0


def test_a_product_with_a_transposed_value_needs_no_transposition(export):
    def write(b, x):
        return b.matmul("m", x, b.transpose("t", "z", (0, 1, 3, 2)), Grid(float32(0.11), 120, 0, 255))

    found = export(write, (3, 5, 8), extra={"z": ((3, 6, 8), SIGNED)})
    # but the one that takes sums apart
    assert found.differing() == 0 and found.kinds.count("TRANSPOSE") == 1

    def turned(b, x):
        return b.matmul("m", b.transpose("t", x, (0, 1, 3, 2)), "z", Grid(float32(0.11), 120, 0, 255))

    found = export(turned, (3, 8, 5), extra={"z": ((3, 8, 6), SIGNED)})
    # but the one that takes sums apart
    assert found.differing() == 0 and found.kinds.count("TRANSPOSE") == 1
