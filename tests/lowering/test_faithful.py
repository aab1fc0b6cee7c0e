"""The program is the eval forward, and where a network computes something else while it is exported, that shows."""

import pytest
import torch
from torch import nn

import qat
from qat.errors import ConversionError
from qat.inject.handle import handle_of

QUESTIONS = [
    lambda x: torch.compiler.is_exporting(),
    lambda x: torch.compiler.is_compiling(),
    lambda x: torch._dynamo.is_compiling(),
    lambda x: torch.jit.is_tracing(),
]


class Wondering(nn.Module):
    """Layers, and a constant between them that is another one where `asks` is true."""

    def __init__(self, asks):
        super().__init__()
        self.first, self.second, self.third = nn.Linear(6, 8), nn.Linear(8, 4), nn.Linear(4, 3)
        self.bias = nn.Parameter(torch.linspace(-1, 1, 8))
        self.asks = asks

    def forward(self, x):
        """x: (batch, 6)."""
        bias = self.bias
        if self.asks(x):  # as a mask of a library's attention, which it adds to a bias only then
            bias = bias + torch.ones(1, 8, dtype=torch.bool)
        return self.third(self.second((self.first(x) + bias).relu()).relu())


def trained(network, example):
    """Prepared and observed, in eval mode."""
    qat.prepare(network, example)
    network(example)
    return network.eval()


@pytest.mark.parametrize("asks", QUESTIONS)
def test_a_network_does_not_see_that_it_is_exported(asks):
    torch.manual_seed(0)
    x = torch.randn(16, 6)
    network = trained(Wondering(asks), x)
    assert torch.equal(qat.convert(network)(x), network(x))


@pytest.mark.parametrize("zeros", [False, True])
def test_another_computation_in_the_graph_is_refused_by_the_first_value_that_differs(zeros):
    torch.manual_seed(0)
    x = torch.randn(16, 6)
    network = Wondering(lambda x: type(x) is not torch.Tensor)
    handle = qat.prepare(network, torch.zeros(1, 6) if zeros else x)
    network(x)
    network.train()
    handle.measure()
    before = handle.runs, {name: tensor.clone() for name, tensor in network.state_dict().items()}
    message = (
        r"\d+ of 6 output codes of the program are not those of the eval forward; the first value that differs is "
        r"add\.output in the network at .*test_faithful\.py:\d+ \(\d+ of 16 codes\), where torch\.export traces"
    )
    with pytest.raises(ConversionError, match=message):
        qat.convert(network)
    assert network.training and handle.runs == before[0]
    assert all(torch.equal(tensor, before[1][name]) for name, tensor in network.state_dict().items())
    assert all(quantizer.measure and quantizer.trail is None for quantizer in handle.quantizers.values())
    assert torch.equal(handle_of(network).examples[0][0], torch.zeros(2, 6) if zeros else x)


class Repeating(nn.Module):
    """One layer that runs three times, differently the last time where its input is no plain tensor."""

    def __init__(self):
        super().__init__()
        self.layer, self.bias = nn.Linear(4, 4), nn.Parameter(torch.ones(4))

    def forward(self, x):
        """x: (batch, 4)."""
        for step in range(3):
            bias = self.bias * 0.5 if step == 2 and type(x) is not torch.Tensor else self.bias
            x = torch.relu(self.layer(x) + bias)
        return x


def test_of_a_value_that_is_made_several_times_the_one_that_differs_is_found():
    torch.manual_seed(0)
    x = torch.randn(16, 4)
    with pytest.raises(
        ConversionError, match=r"the first value that differs is input\.x in the network at .*\(7 of 8 codes\)"
    ):
        qat.convert(trained(Repeating(), x))


class Cast(nn.Module):
    """Layers and constants that a network of 16 bits computes with roundings of its own."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.second = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 4)
        self.angles = nn.Parameter(torch.linspace(0.1, 3, 8))
        self.register_buffer("shift", torch.linspace(-1, 1, 8))

    def forward(self, x):
        """x: (batch, 6)."""
        return self.second(torch.relu(self.norm(self.first(x)) * torch.cos(self.angles * 3) + self.shift))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_network_that_was_cast_is_compared_as_the_same_numbers_in_float32(dtype):
    torch.manual_seed(0)
    x = torch.randn(64, 6)
    network = trained(Cast().to(dtype), x.to(dtype))
    parts = [*network.parameters(), *network.buffers()]
    before = [(id(part), part.dtype, part.data_ptr(), part.clone()) for part in parts]
    program = qat.convert(network)
    after = [*network.parameters(), *network.buffers()]
    assert [(id(part), part.dtype, part.data_ptr()) for part in after] == [entry[:3] for entry in before]
    assert all(torch.equal(part, entry[3]) for part, entry in zip(after, before, strict=True))
    if dtype is not torch.float64:
        network.float()
    assert torch.equal(program(x), network(x.to(next(network.parameters()).dtype)).float())
