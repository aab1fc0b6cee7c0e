import pytest
import torch
from torch import nn

import qat
from qat.errors import ConversionError, PreparationError
from qat.inject.operations import operation_of
from qat.inject.remedies import REMEDIES, remedy_for
from qat.targets import ONNXRUNTIME


def test_every_remedy_is_for_an_operation_that_needs_one():
    assert not set(REMEDIES) & ONNXRUNTIME.operations
    assert remedy_for("cumsum") == "replace it, or quantize a sub-network (module=)"


def test_names_are_those_that_calls_get():
    assert {operation_of(function).name for function in (torch.sub, torch.Tensor.__neg__, torch.max)} <= set(REMEDIES)


@pytest.mark.parametrize("target", ["onnxruntime", None])
def test_the_remedy_is_told_before_training_and_when_converting(target):
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 4)

        def forward(self, x):
            return nn.functional.gelu(self.layer(x))

    network, x = Network(), torch.randn(4, 3)
    with pytest.raises((PreparationError, ConversionError), match=r"gelu in the network at .*use relu, relu6 or hard"):
        qat.prepare(network, x, target=target)
        network(x)
        network.eval()
        qat.convert(network)
