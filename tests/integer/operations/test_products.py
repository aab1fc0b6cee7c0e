import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qat.errors import ProgramError
from qat.integer.builder import ProgramBuilder
from qat.integer.checks import accumulator_reach
from qat.integer.fixed_point import Multiplier
from qat.integer.interpreter import run
from qat.integer.kernels.matrices import matrix_sums
from qat.integer.values import Grid, float32

GRIDS = [
    Grid(0.5, 0, 0, 255),
    Grid(0.5, 77, 0, 255),
    Grid(0.5, -3, -128, 127),
    Grid(0.5, 3, 0, 15),
    Grid(0.5, 9, 0, 4095),
    Grid(0.5, 0, -32768, 32767),
]


def product(first, second, grids, target, **settings):
    builder = ProgramBuilder()
    x, y = (builder.input(name, shape, grid) for name, shape, grid in zip("xy", (first, second), grids, strict=True))
    builder.output("z", builder.matmul("m", x, y, target, **settings))
    return builder.build()


def test_a_product_by_hand():
    first, second = Grid(0.5, 1, 0, 15), Grid(0.25, -1, -8, 7)
    program = product((1, 2), (2, 2), (first, second), Grid(0.5, 10, 0, 255), factor=2.0)
    codes = {"x": torch.tensor([[[4, 0]]]).byte(), "y": torch.tensor([[[1, 2], [-1, 3]]], dtype=torch.int8)}
    # [3 -1] @ [[2 3] [0 4]] = [6 5]; M = 0.5 * (0.25 * 2) / 0.5 = 0.5; 2.5 ties to 2
    assert run(program, codes)["m"].tolist() == [[[13, 12]]]
    assert program.operations[0].multiplier.to_float().tolist() == [0.5]


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_sums_are_exact(data):
    draw = data.draw
    grids = [draw(st.sampled_from(GRIDS)) for _ in range(2)]
    rows, inner, columns = (draw(st.integers(1, 70)) for _ in range(3))
    leading = draw(st.sampled_from([((), ()), ((3,), (3,)), ((2, 1), (1, 3)), ((1,), (4,))]))
    shapes = (*leading[0], rows, inner), (*leading[1], inner, columns)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**30)))
    batches = draw(st.sampled_from([(2, 2), (2, 1), (1, 2)]))  # 1: a constant
    codes = [
        torch.randint(grid.quant_min, grid.quant_max + 1, (batch, *shape), generator=generator).to(grid.dtype)
        for grid, shape, batch in zip(grids, shapes, batches, strict=True)
    ]
    actual = matrix_sums(codes, grids)
    first, second = ((entry.to(torch.float64) - grid.zero_point) for entry, grid in zip(codes, grids, strict=True))
    assert not actual.is_floating_point()
    assert torch.equal(actual.to(torch.float64), first @ second)


def test_extreme_codes_do_not_saturate():
    grid = Grid(1.0, 0, 0, 255)
    codes = [torch.full(shape, 255, dtype=torch.uint8) for shape in ((1, 64, 256), (1, 256, 64))]
    sums = matrix_sums(codes, [grid, grid])
    assert sums.unique().tolist() == [255 * 255 * 256]


def test_constants_are_operands():
    builder = ProgramBuilder()
    grid = Grid(0.5, 0, 0, 15)
    x = builder.input("x", (1, 2), grid)
    k = builder.constant("k", torch.tensor([[1, 2], [3, 4]]), grid)
    builder.output("y", builder.matmul("m", x, k, Grid(0.25, 0, 0, 255)))
    assert run(builder.build(), {"x": torch.tensor([[[1, 1]], [[2, 0]]]).byte()})["m"].tolist() == [[[4, 6]], [[2, 4]]]


def test_the_reach_is_that_of_the_farthest_codes():
    program = product((3, 5), (5, 2), (Grid(0.5, 100, 0, 255), Grid(0.5, -3, -128, 127)), Grid(1.0, 0, 0, 255))
    assert accumulator_reach(program.operations[0], program.named) == 5 * 155 * 130


@pytest.mark.parametrize(
    ("shapes", "settings", "message"),
    [
        (((3, 4), (3, 4)), {}, "cannot multiply"),
        (((4,), (4, 3)), {}, "cannot multiply"),
        (((4,), (4,)), {}, "cannot multiply"),
        (((2, 3, 4), (3, 4, 5)), {}, "cannot broadcast"),
        (((3, 4), (4, 3)), {"factor": -1.0}, "a multiplier is|factor -1.0"),
        (((3, 4), (4, 3)), {"factor": float("inf")}, "a multiplier is|factor inf"),
        (((3, 40000), (40000, 3)), {}, "can accumulate up to 2601000000.* of int32"),
    ],
)
def test_products_that_do_not_fit_are_refused(shapes, settings, message):
    with pytest.raises(ProgramError, match=message):
        product(*shapes, (GRIDS[0], GRIDS[0]), Grid(1.0, 0, 0, 255), **settings)


def test_another_multiplier_is_refused():
    program = product((3, 4), (4, 3), (GRIDS[0], GRIDS[0]), Grid(1.0, 0, 0, 255), factor=float32(0.3))
    (operation,) = program.operations
    for changes in ({"factor": 0.5}, {"multiplier": Multiplier.from_float(torch.tensor(0.25))}, {"factor": 0.3}):
        with pytest.raises(ProgramError, match="multipliers that are not|a positive float32"):
            dataclasses.replace(program, operations=(dataclasses.replace(operation, **changes),))
