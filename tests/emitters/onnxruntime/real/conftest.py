import pytest
from torch import nn

import qat
from qat.emitters.onnxruntime import open_session, run_session


class Behind(nn.Module):
    """A linear layer, and a function of its result."""

    def __init__(self, function):
        super().__init__()
        self.linear = nn.Linear(4, 6)
        self.function = function

    def forward(self, x):
        return self.function(self.linear(x))


@pytest.fixture
def behind():
    """Makes a network of a function behind a linear layer of 4 numbers to 6."""
    return Behind


@pytest.fixture
def difference(tmp_path):
    """Exports a module, and tells the largest difference of the file's output from the module's own."""

    def largest(module, x):
        module.eval()
        program = qat.quantize(module, [x], quant="fp16")
        qat.export(program, tmp_path / "model.onnx")
        session = open_session(tmp_path / "model.onnx")
        differences = []
        for batch in (x, x[:1]):
            found = next(iter(run_session(session, program.named_inputs(batch)).values()))
            expected = module(batch).detach()
            differences.append(float((found.reshape(expected.shape).double() - expected.double()).abs().max()))
        return max(differences)

    return largest
