import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qat
from qat.errors import ConversionError, PreparationError
from qat.inject.operations import operation_of
from qat.inject.remedies import REMEDIES, remedy_for
from qat.targets import ONNXRUNTIME


def test_every_remedy_is_for_an_operation_that_needs_one():
    assert not set(REMEDIES) & ONNXRUNTIME.operations
    assert remedy_for("renorm") == "replace it, or quantize a sub-network (module=)"


def test_names_are_those_that_calls_get():
    functions = (torch.prod, torch.Tensor.__pow__, F.grid_sample, torch.Tensor.logcumsumexp, torch.linalg.inv)
    assert {operation_of(function).name for function in functions} <= set(REMEDIES)


@pytest.mark.parametrize("target", ["onnxruntime", None])
def test_the_remedy_is_told_before_training_and_when_converting(target):
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 4)

        def forward(self, x):
            return self.layer(x).logcumsumexp(1)

    network, x = Network(), torch.randn(4, 3)
    with pytest.raises((PreparationError, ConversionError), match=r"logcumsumexp in the network at .*apply it to the"):
        qat.prepare(network, x, target=target)
        network(x)
        network.eval()
        qat.convert(network)
