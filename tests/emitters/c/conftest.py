"""Runs a small program as compiled C and in the interpreter."""

import pytest
from small_programs import small_program

from qat.emitters import c
from qat.integer.values import Grid, float32

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
        program = small_program(write, shapes, grids)
        path = tmp_path / "network.c"
        c.emit(program, path)
        return program, path

    return check
