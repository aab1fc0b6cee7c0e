"""From networks whose activations stay real to their programs."""

import pytest
import torch
from torch import nn

import qat
from qat.errors import PreparationError
from qat.real.program import RealProgram


def test_code_that_asks_what_it_runs_on_is_found(program_of):
    class Asks(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 3)

        def forward(self, x):
            y = self.linear(x)
            factor = 2 if type(y) is torch.Tensor else 3
            return y * factor

    with pytest.raises(PreparationError, match="is another function than that of the eval forward"):
        program_of(Asks(), torch.randn(2, 3))


@pytest.mark.parametrize(("quant", "bound"), [("w8-dynamic", 2e-2), ("w4-weight-only", 2e-3), ("fp16", 2e-3)])
def test_the_program_is_what_the_eval_forward_computes_but_for_what_float16_rounds(quant, bound):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.LayerNorm(64), nn.Linear(64, 8)).eval()
    x = torch.randn(16, 64)
    handle = qat.prepare(network, x, quant)
    network.train()(x)
    network.eval()
    program = qat.convert(network)
    assert isinstance(program, RealProgram)
    assert float((program(x) - network(x)).detach().abs().max()) < bound
    handle.remove()
