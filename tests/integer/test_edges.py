"""Inputs and outputs that carry codes instead of real numbers."""

import dataclasses
import json

import pytest
import torch

from qat.errors import ProgramError
from qat.integer import storage
from qat.integer.builder import ProgramBuilder
from qat.integer.interpreter import dequantize, run_real
from qat.integer.program import Grid, IndexRange, Input, IntegerProgram

UNSIGNED = Grid(0.5, 10, 0, 255)
SIGNED = Grid(0.25, 3, -128, 127)
WIDE = Grid(0.25, 0, -32768, 32767)


def program(grid=UNSIGNED) -> IntegerProgram:
    builder = ProgramBuilder()
    builder.input("x", (3,), grid)
    builder.input("ids", (3,), IndexRange(4))
    builder.output("same", builder.slice("cut", "x", (0,), (3,)))
    builder.output("which", builder.slice("ids cut", "ids", (1,), (3,)))
    return builder.build("dict")


def inputs(x):
    return {"x": x, "ids": torch.tensor([[0, 1, 2]])}


@pytest.mark.parametrize(
    "grid, dtype, given", [(UNSIGNED, torch.uint8, [0, 10, 255]), (SIGNED, torch.uint8, [0, 131, 255])]
)
def test_codes_pass_as_runtimes_hold_them(grid, dtype, given):
    codes = torch.tensor([given], dtype=dtype)
    result = program(grid).with_integer_edges("x", "same")(inputs(codes))["same"]
    assert result.dtype == dtype and torch.equal(result, codes)


def test_wide_codes_are_counted_from_zero_as_well():
    codes = torch.tensor([[0, 32768, 65535]], dtype=torch.int32)
    chosen = program(WIDE).with_integer_edges("x")
    assert chosen(inputs(codes))["same"].tolist() == [[-8192.0, 0.0, 8191.75]]
    assert torch.equal(program(WIDE).with_integer_edges("*")(inputs(codes))["same"], codes)


@pytest.mark.parametrize("grid", [UNSIGNED, SIGNED])
def test_codes_are_those_of_the_real_numbers(grid):
    real = torch.tensor([[-1.3, 0.0, 7.9]])
    given = program(grid).with_integer_edges("same")(inputs(real))["same"]
    assert torch.equal(
        dequantize((given.int() - grid.unsigned_offset).to(grid.dtype), grid), program(grid)(inputs(real))["same"]
    )
    assert torch.equal(
        program(grid).with_integer_edges("x")(inputs(given))["same"], program(grid)(inputs(real))["same"]
    )


def test_patterns_choose_edges_and_leave_indices_alone():
    chosen = program().with_integer_edges("*")
    assert [(edge.name, edge.codes) for edge in (*chosen.inputs, *chosen.outputs)] == [
        ("x", True),
        ("ids", False),
        ("same", True),
        ("which", False),
    ]
    assert chosen.with_real_edges().inputs == program().inputs
    assert program().with_integer_edges("x").with_integer_edges("same").inputs[0].codes


def test_a_pattern_that_names_nothing_is_refused():
    with pytest.raises(ProgramError, match="no input or output is named 'past.*'; choose among x, ids, same, which"):
        program().with_integer_edges("x", "past.*")


def test_indices_cannot_be_declared_codes():
    with pytest.raises(ProgramError, match="'ids' holds indices, which are integers as they are"):
        dataclasses.replace(program(), inputs=(program().inputs[0], Input("ids", "ids", codes=True)))


def test_real_numbers_where_codes_are_taken_are_refused():
    with pytest.raises(ProgramError, match=r"input 'x' is torch.float32; it takes integers of 0..255"):
        run_real(program().with_integer_edges("x"), inputs(torch.zeros(1, 3)))


def test_codes_outside_of_the_grid_are_refused():
    narrow = program(Grid(0.5, 3, 0, 15)).with_integer_edges("x")
    with pytest.raises(ProgramError, match=r"has integers 1..16, outside 0..15; give it codes of that range only"):
        narrow(inputs(torch.tensor([[1, 16, 2]])))


def test_saved_programs_keep_their_edges(tmp_path):
    program().with_integer_edges("same").save(tmp_path)
    assert [edge.codes for edge in IntegerProgram.load(tmp_path).outputs] == [True, False]


def test_a_file_of_before_there_were_such_edges_is_read(tmp_path):
    program().save(tmp_path)
    path = tmp_path / storage.JSON_NAME
    document = json.loads(path.read_text())
    for edge in (*document["inputs"], *document["outputs"]):
        del edge["codes"]
    document["sha256"] = storage._digest(document)
    path.write_text(json.dumps(document))
    assert IntegerProgram.load(tmp_path).inputs == program().inputs
