"""Division in C: every quotient."""

import pytest
import torch

from qat.emitters import c
from qat.integer.builder import ProgramBuilder
from qat.integer.interpreter import to_edge
from qat.integer.values import Grid, float32

SOURCES = [
    Grid(float32(0.1), 128, 0, 255),
    Grid(float32(0.021), -5, -128, 127),
    Grid(float32(0.3), 5, 3, 9),
    Grid(float32(0.001), 0, -300, 300),
]
TARGETS = [Grid(float32(0.03), 140, 0, 255), Grid(float32(0.2), -3, -128, 127), Grid(float32(0.01), 0, -30_000, 30_000)]


@pytest.mark.parametrize("first", SOURCES)
def test_every_quotient(tmp_path, first):
    builder = ProgramBuilder()
    inputs = {}

    def every(name, grid, shape):
        codes = torch.arange(grid.quant_min, grid.quant_max + 1).reshape(shape)
        inputs[name] = to_edge(codes[None].to(grid.dtype), grid, False)
        return builder.input(name, tuple(codes.shape), grid)

    x = every("x", first, (-1, 1))
    for place, second in enumerate(SOURCES):
        y = every(f"y{place}", second, (1, -1))
        for number, target in enumerate(TARGETS):
            builder.output(f"z{place}{number}", builder.divide(f"d{place}{number}", x, y, target))
    program = builder.build("dict")
    c.emit(program, tmp_path / "network.c")
    actual = c.run_session(c.open_session(tmp_path / "network.c", ("-O1",)), inputs)
    for name, expected in program(inputs).items():
        assert torch.equal(actual[name], expected)


def test_a_constant_is_divided_or_divides(assert_equal_in_both):
    def write(builder, x):
        constant = builder.constant("c", torch.tensor([3, -5, 0, 100]), SOURCES[1])
        return builder.divide("over", x, constant, TARGETS[1]), builder.divide("under", constant, x, TARGETS[1])

    assert_equal_in_both(write, [(4,)], [SOURCES[0]])
