"""Accumulators by hand: of any input, and of what was seen."""

import torch

from qat.integer.builder import ProgramBuilder
from qat.integer.interpreter import quantize_inputs
from qat.integer.values import Grid, Weight, WeightGrid
from qat.verification.accumulators import Reach, bits_of, largest_seen, reaches

GRID = Grid(1.0, 10, 0, 255)


def test_bits_hold_both_signs():
    assert [bits_of(magnitude) for magnitude in (0, 1, 2, 127, 128, 2**31 - 1)] == [1, 2, 3, 8, 9, 32]


def test_a_linear_layer_and_what_it_saw():
    weight = Weight(torch.tensor([[3, -2], [1, 1]], dtype=torch.int8), WeightGrid(8), torch.full((2,), 1.0))
    builder = ProgramBuilder()
    builder.output("y", builder.linear("fc", builder.input("x", (2,), GRID), weight, GRID))
    program = builder.build()
    seen = largest_seen(program, {"x": torch.tensor([[4.0, -1.0], [0.0, 9.0], [200.0, 200.0]])}, samples=2)
    assert seen == {
        "fc": 18
    }  # 3 * 4 - 2 * -1 = 14 and 4 - 1 = 3; 3 * 0 - 2 * 9 = -18 and 9; the third is not asked for
    # for any input 3 * 245 - 2 * -10 = 755, of 10 bits and a sign
    assert reaches(program, seen) == (Reach("fc", "Linear", worst_case=11, data=6),)
    assert reaches(program, {}) == (Reach("fc", "Linear", worst_case=11, data=None),)


def test_every_kind_of_sum():
    kernel = Weight(torch.tensor([[[[1, 2], [0, -1]]]], dtype=torch.int8), WeightGrid(8), torch.ones(1))
    builder = ProgramBuilder()
    x = builder.input("x", (1, 3, 3), GRID)
    builder.conv("conv", x, kernel, GRID, padding=((1, 0), (0, 1)))
    builder.average_pool("pool", x, (2, 2), GRID)
    builder.mean("mean", x, (2, 3), GRID)
    builder.sum("sum", x, (2,), GRID)
    builder.mul("mul", x, x, GRID)
    builder.output("y", builder.matmul("matmul", x, x, GRID))
    program = builder.build()
    inputs = {"x": torch.tensor([[[[1.0, 2, 3], [4, 5, 6], [7, 8, 9]]]])}
    seen = largest_seen(program, inputs, samples=1)
    # pool: 1 + 2 + 4 + 5, one window
    # conv: windows [[x, y], [z, w]] give x + 2 y - w; the largest are 4 + 2 * 5 - 8, 5 + 2 * 6 - 9 = 8
    assert seen == {"conv": 8, "pool": 12, "mean": 45, "sum": 18, "mul": 81, "matmul": 7 * 3 + 8 * 6 + 9 * 9}
    codes = quantize_inputs(program, inputs)
    assert int(codes["x"].max()) == 19
