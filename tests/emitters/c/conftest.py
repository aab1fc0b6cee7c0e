"""Runs a small program as compiled C and in the interpreter."""

import math

import pytest
import torch

from qat.emitters import c
from qat.integer.builder import ProgramBuilder
from qat.integer.interpreter import to_edge
from qat.integer.values import Grid, Weight, WeightGrid, float32

#: Compiled quickly, with more warnings than sources are shipped with, and every access and every number is watched.
WATCHED = (
    "-O0", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-pedantic", "-Wshadow", "-Wconversion",
)  # fmt: skip

UNSIGNED = Grid(float32(0.02), 100, 0, 255)
RELU = Grid(float32(0.013), 0, 0, 255)
SIGNED = Grid(float32(0.021), -5, -128, 127)
NARROW = Grid(float32(0.3), 2, 0, 15)
SIGNED_NARROW = Grid(float32(0.25), 1, -7, 7)
GRIDS = [UNSIGNED, RELU, SIGNED, NARROW, SIGNED_NARROW]
WEIGHT_GRIDS = [(2, 64, 32), (2, 1, 0), (3, 32, 0), (4, 16, 0), (5, 8, 0), (6, 4, 0), (7, 2, 0), (8, 1, 0)]


@pytest.fixture
def assert_equal_in_both(tmp_path, monkeypatch):
    """(write, shapes, grids) -> (program, path) of the program that `write(builder, *inputs)` makes.

    It is emitted, which proves it integer and compares it on random codes, here with sanitizers and on more of them.
    `write` gives the name of the value that is the output, or of several.
    """
    monkeypatch.setattr(c, "OPTIMIZED", WATCHED)
    monkeypatch.setattr(c, "CHECK_SAMPLES", 40)

    def check(write, shapes, grids):
        builder = ProgramBuilder()
        edges = enumerate(zip(shapes, grids, strict=True))
        sources = [builder.input(f"x{index}", shape, grid) for index, (shape, grid) in edges]
        results = write(builder, *sources)
        for index, name in enumerate((results,) if isinstance(results, str) else results):
            builder.output(f"y{index}", name)
        program = builder.build("dict")
        path = tmp_path / "network.c"
        c.emit(program, path)
        return program, path

    return check


@pytest.fixture
def random_weight():
    """(shape, bits, step, offset) -> weights that keep the spread of their input, so that results fill a grid."""

    def make(shape, bits=8, step=1, offset=0, seed=0):
        generator = torch.Generator().manual_seed(seed)
        half = 2 ** (bits - 1)
        codes = torch.randint(-half, half, shape, generator=generator).to(torch.int8)
        spread = math.sqrt(math.prod(shape[1:])) * half * step * 0.5
        scale = (0.5 + torch.rand(shape[0], generator=generator)) / spread
        return Weight(codes, WeightGrid(bits, step, offset), scale.to(torch.float32))

    return make


def random_inputs(program, batch, seed=1):
    """Inputs by name, of random codes."""
    generator = torch.Generator().manual_seed(seed)
    inputs = {}
    for edge in program.inputs:
        value = program.value(edge.value)
        limits = value.grid.quant_min, value.grid.quant_max + 1
        codes = torch.randint(*limits, (batch, *value.shape), generator=generator)
        inputs[edge.name] = to_edge(codes, value.grid, edge.codes)
    return inputs
