import pytest
import torch

import qat.emitters.litert as emitter
from qat.emitters.options import DEFAULTS
from qat.emitters.samples import outputs_by_name, random_inputs
from qat.integer.builder import ProgramBuilder
from qat.integer.semantics import for_runtime
from qat.integer.values import Grid, float32

BYTE, NIBBLE = Grid(float32(0.02), 117, 0, 255), Grid(float32(0.3), 0, 0, 15)


class Exported:
    """A program of one operation, its file, and what is in it."""

    def __init__(self, program, path, options):
        self.program, self.path = for_runtime(program, "litert"), path
        emitter.emit(self.program, path, options)
        self.kinds = [operation.kind for operation in emitter.operations(path)]
        self.session = emitter.open_session(path)

    def differing(self, sizes=(1, 33, 8), seed=5):
        """How many codes of the outputs differ from the program's, on other codes than those of the check."""
        count = 0
        for inputs in random_inputs(self.program, sizes, seed=seed):
            results = emitter.run_session(self.session, inputs)
            for name, expected in outputs_by_name(self.program, inputs).items():
                assert results[name].shape == expected.shape and results[name].dtype == expected.dtype
                count += int((results[name] != expected).sum())
        return count


@pytest.fixture
def export(tmp_path):
    """export(write, shape, grid): a file of what `write(builder, "x")` makes of an input x."""

    def make(write, shape=(4, 6, 6), grid=BYTE, options=DEFAULTS, codes=False, extra=None):
        builder = ProgramBuilder()
        builder.input("x", shape, grid)
        for name, (size, other) in (extra or {}).items():
            builder.input(name, size, other)
        builder.output("y", write(builder, "x"))
        program = builder.build()
        program = program.with_integer_edges("*") if codes else program
        return Exported(program, tmp_path / "model.tflite", options)

    return make


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(11)
