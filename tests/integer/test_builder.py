import pytest
import torch

from qat.errors import ProgramError
from qat.integer.builder import ProgramBuilder
from qat.integer.fixed_point import Multiplier, SumMultipliers
from qat.integer.values import Grid, Weight, WeightGrid, float32

BYTE = Grid(0.5, 3, 0, 255)
OUT = Grid(0.25, 128, 0, 255)


def weight(*shape):
    return Weight(torch.ones(shape, dtype=torch.int8), WeightGrid(4), torch.full(shape[:1], 0.75))


def test_shapes_grids_and_names_follow_from_what_is_given():
    builder = ProgramBuilder()
    x = builder.input("x", (2, 8, 8), BYTE)
    y = builder.conv("conv", x, weight(4, 2, 3, 3), OUT)
    z = builder.max_pool("pool", y, (2, 2))
    assert (x, y, z) == ("x", "conv", "pool")
    assert builder.shape(y) == (4, 6, 6) and builder.shape(z) == (4, 3, 3)
    assert builder.grid(y) == builder.grid(z) == OUT
    builder.output("out", z)
    program = builder.build()
    assert [value.name for value in program.values] == ["x", "conv", "pool"]
    assert [(edge.name, edge.value) for edge in program.outputs] == [("out", "pool")]


def test_a_layer_has_a_bias_of_zeros_unit_geometry_and_no_clamp_unless_told():
    builder = ProgramBuilder()
    builder.output("y", builder.conv("conv", builder.input("x", (2, 8), BYTE), weight(4, 2, 3), OUT))
    (conv,) = builder.build().operations
    assert conv.bias.tolist() == [0, 0, 0, 0]
    assert (conv.stride, conv.padding, conv.dilation, conv.groups) == ((1,), ((0, 0),), (1,), 1)
    assert (conv.clamp_min, conv.clamp_max) == (0, 255)
    assert conv.source == "conv"


def test_multipliers_follow_from_the_scales():
    builder = ProgramBuilder()
    x = builder.input("x", (2, 4), BYTE)
    builder.linear("linear", x, weight(3, 4), OUT)
    builder.add("add", x, x, OUT)
    builder.mul("mul", x, x, OUT)
    builder.requantize("half", x, OUT, factor=-0.5)
    builder.mean("mean", x, (1, 2), OUT)
    builder.average_pool("pool", x, (3,), OUT)
    made = {operation.name: operation for operation in builder._operations}
    assert made["linear"].multiplier.to_float().tolist() == [1.5] * 3  # 0.5 * 0.75 / 0.25
    assert made["add"].factors == SumMultipliers.from_grids(BYTE, BYTE, OUT)
    assert made["mul"].multiplier.to_float().tolist() == [1.0]
    assert made["half"].multiplier.to_float().tolist() == [1.0] and made["half"].factor == -0.5
    assert made["mean"].multiplier.to_float().tolist() == [0.25]
    assert made["pool"].multiplier.equals(Multiplier.from_scales(0.5, float32(1 / 3), 0.25))


def test_a_pool_strides_by_its_window_unless_told():
    builder = ProgramBuilder()
    x = builder.input("x", (2, 8), BYTE)
    assert builder.shape(builder.average_pool("a", x, (4,), OUT)) == (2, 2)
    assert builder.shape(builder.average_pool("b", x, (4,), OUT, stride=(1,))) == (2, 5)
    assert builder.shape(builder.max_pool("c", x, (4,))) == (2, 2)


def test_what_does_not_fit_is_refused_as_it_is_added():
    builder = ProgramBuilder()
    x = builder.input("x", (2, 8), BYTE)
    with pytest.raises(ProgramError, match="Linear 'fc'.* cannot take an input"):
        builder.linear("fc", x, weight(3, 4), OUT)
    with pytest.raises(ProgramError, match="Reshape 'r'.* cannot turn"):
        builder.reshape("r", x, (3,))
