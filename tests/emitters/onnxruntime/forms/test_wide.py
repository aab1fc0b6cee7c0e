"""Codes of 16 bits between additions, norms and linear layers: equal in both, and refused elsewhere."""

import pytest
import torch

from qat.emitters.onnxruntime.operators import build
from qat.errors import ExportError
from qat.integer.builder import ProgramBuilder
from qat.integer.values import Grid, Weight, WeightGrid, float32

BYTE = Grid(float32(0.02), 100, 0, 255)
SIGNED = Grid(float32(0.05), -5, -128, 127)
WIDE = Grid(float32(0.02 / 300), 30_000, 0, 65_535)
WIDE_SIGNED = Grid(float32(0.03 / 200), 11, -32_767, 32_767)
WIDES = [WIDE, WIDE_SIGNED]


def weight_of(shape):
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(-128, 128, shape, generator=generator).to(torch.int8)
    return Weight(codes, WeightGrid(8), (0.5 + torch.rand(shape[0], generator=generator)) / 500)


@pytest.mark.parametrize("wide", WIDES)
@pytest.mark.parametrize("shape", [(12,), (5, 12), (2, 3, 12)])
def test_a_sum_for_a_norm(assert_equal_in_both, wide, shape):
    bias = torch.arange(12, dtype=torch.int32) * 300 - 2000

    def write(builder, x):
        linear = builder.linear("fc", x, weight_of((12, 12)), wide, bias=bias)
        total = builder.add("add", linear, x, wide)
        return builder.normalize("norm", total, (len(shape),), SIGNED)

    program, _ = assert_equal_in_both(write, [shape], [BYTE])
    assert program.value("fc").grid.bits == program.value("add").grid.bits == 16


@pytest.mark.parametrize("target", [BYTE, SIGNED, *WIDES])
@pytest.mark.parametrize("source", WIDES)
def test_every_pair_of_grids(assert_equal_in_both, source, target):
    def write(builder, x):
        wide = builder.linear(
            "fc", x, weight_of((6, 6)), source, clamp=(source.zero_point - 5000, source.quant_max - 9)
        )
        total = builder.add("add", wide, wide, target)
        copy = builder.requantize("copy", wide, BYTE, factor=-0.7)
        return copy, builder.requantize("narrow", total, SIGNED), builder.reshape("r", copy, (2, 3))

    assert_equal_in_both(write, [(6,)], [SIGNED])


def test_a_wide_constant_and_a_wide_norm(assert_equal_in_both):
    codes = torch.arange(-30_000, 30_000, 10_000, dtype=torch.int16)

    def write(builder, x):
        position = builder.constant("position", codes, Grid(float32(1e-4), 0, -32_767, 32_767))
        norm = builder.normalize("norm", builder.add("add", x, position, WIDE), (1,), WIDE_SIGNED)
        return builder.requantize("copy", builder.add("residual", norm, x, WIDE), BYTE)

    assert_equal_in_both(write, [(6,)], [BYTE])


def test_sums_that_nearly_leave_int32(assert_equal_in_both):
    codes = torch.full((1, 8), 127, dtype=torch.int8)
    weight = Weight(codes, WeightGrid(8), torch.tensor([float32(1e-4)]))
    bias = torch.tensor([2**31 - 1 - 8 * 127 * 255], dtype=torch.int32)

    def write(builder, x):
        wide = builder.linear("fc", x, weight, Grid(float32(0.05), 0, 0, 65_535), bias=bias)
        return builder.requantize("copy", wide, Grid(float32(15.0), 0, 0, 255))

    assert_equal_in_both(write, [(8,)], [Grid(1.0, 0, 0, 255)])


@pytest.mark.parametrize(
    "write",
    [
        lambda builder, wide: builder.mul("mul", wide, wide, BYTE),
        lambda builder, wide: builder.linear("fc2", wide, weight_of((4, 4)), BYTE),
        lambda builder, wide: builder.softmax("softmax", wide, 1, BYTE),
        lambda builder, wide: builder.reshape("r", wide, (2, 2)),
    ],
)
def test_other_readers_and_outputs_are_refused(write):
    builder = ProgramBuilder()
    wide = builder.linear("fc", builder.input("x", (4,), BYTE), weight_of((4, 4)), WIDE)
    builder.output("y", write(builder, wide))
    with pytest.raises(ExportError, match=r"kernels take codes of 8 bits \(these are 0..65535\)"):
        build(builder.build())


def test_a_collapsed_output_is_refused():
    builder = ProgramBuilder()
    weight = Weight(torch.ones(1, 1, dtype=torch.int8), WeightGrid(8), torch.tensor([1.0]))
    tiny = Grid(float32(2.0**-24), 0, 0, 65_535)
    wide = builder.linear("fc", builder.input("x", (1,), Grid(1.0, 0, 0, 255)), weight, tiny)
    builder.output("y", builder.requantize("copy", wide, BYTE))
    with pytest.raises(ExportError, match="Linear 'fc': its output has steps more than 2.24 times finer than its sums"):
        build(builder.build())
