"""Runs a small program in ONNX Runtime and in the interpreter."""

import pytest
import torch
from small_programs import small_program

from qat.emitters.onnxruntime import emit, open_session, run_session
from qat.emitters.samples import outputs_by_name, random_inputs


@pytest.fixture
def assert_equal_in_both(tmp_path):
    """(write, shapes, grids) -> (program, path) of the program that `write(builder, *inputs)` makes.

    It is emitted, which compares on random codes, then compared on more codes, odd batch sizes included. `write` gives
    the name of the value that is the output, or of several.
    """

    def check(write, shapes, grids):
        program = small_program(write, shapes, grids)
        path = tmp_path / "model.onnx"
        emit(program, path)
        session = open_session(path)
        for inputs in random_inputs(program, (1, 5, 32), any_length=False, seed=1):
            actual = run_session(session, inputs)
            for name, expected in outputs_by_name(program, inputs).items():
                assert actual[name].dtype == expected.dtype and torch.equal(actual[name], expected)
        return program, path

    return check
