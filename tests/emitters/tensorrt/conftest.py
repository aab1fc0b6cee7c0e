"""Writes a small program as a QDQ file, and runs it in ONNX Runtime with optimizations off and in the interpreter."""

import pytest
import torch
from small_programs import small_program

from qat.emitters.samples import outputs_by_name, random_inputs
from qat.emitters.tensorrt import emit, open_session, run_session


@pytest.fixture
def written(tmp_path):
    """(write, shapes, grids) -> (program, path) of the program that `write(builder, *inputs)` makes.

    `write` gives the name of the value that is the output, or of several. `emit` compares every operation.
    """

    def make(write, shapes, grids):
        program = small_program(write, shapes, grids)
        path = tmp_path / "model.onnx"
        emit(program, path)
        return program, path

    return make


@pytest.fixture
def assert_equal_in_both(written):
    """As `written`; the outputs are equal on more codes, odd batch sizes included."""

    def check(write, shapes, grids):
        program, path = written(write, shapes, grids)
        session = open_session(path)
        for inputs in random_inputs(program, sizes=(1, 5, 32), seed=1):
            actual = run_session(session, inputs)
            for name, expected in outputs_by_name(program, inputs).items():
                assert actual[name].dtype == expected.dtype and torch.equal(actual[name], expected)
        return program, path

    return check
