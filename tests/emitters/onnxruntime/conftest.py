"""Runs a small program in ONNX Runtime and in the interpreter."""

import pytest
import torch

from qat.emitters.onnxruntime import emit, open_session, run_session
from qat.integer.builder import ProgramBuilder
from qat.integer.interpreter import dequantize


@pytest.fixture
def assert_equal_in_both(tmp_path):
    """(write, shapes, grids) -> (program, path) of the program that `write(builder, *inputs)` makes.

    It is emitted, which compares on random codes, then compared on more codes, odd batch sizes included. `write` gives
    the name of the value that is the output, or of several.
    """

    def check(write, shapes, grids):
        builder = ProgramBuilder()
        edges = enumerate(zip(shapes, grids, strict=True))
        sources = [builder.input(f"x{index}", shape, grid) for index, (shape, grid) in edges]
        results = write(builder, *sources)
        for index, name in enumerate((results,) if isinstance(results, str) else results):
            builder.output(f"y{index}", name)
        program = builder.build("dict")
        path = tmp_path / "model.onnx"
        emit(program, path)
        session = open_session(path)
        generator = torch.Generator().manual_seed(1)
        for batch in (1, 5, 32):
            inputs = {}
            for edge in program.inputs:
                value = program.value(edge.value)
                limits = value.grid.quant_min, value.grid.quant_max + 1
                codes = torch.randint(*limits, (batch, *value.shape), generator=generator)
                inputs[edge.name] = dequantize(codes, value.grid)
            actual = run_session(session, inputs)
            for name, expected in program(inputs).items():
                assert actual[name].dtype == expected.dtype and torch.equal(actual[name], expected)
        return program, path

    return check
