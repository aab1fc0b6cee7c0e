"""Code that branches on tensors of its own making is exported on the way that the eval forward goes."""

import logging

import pytest
import torch
from torch import nn

import qat
from qat.emitters.onnxruntime import emit, float_ops, open_session, run_session
from qat.errors import ConversionError
from qat.lowering.exported import export

LENGTH = 7


class Causal(nn.Module):
    """torch's own encoder, which looks at its mask to find out whether it is the causal one."""

    def __init__(self, mask):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.embedding, self.mask = nn.Embedding(30, 8), mask
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.register_buffer("later", torch.ones(9, 9, dtype=torch.bool).triu(1))

    def forward(self, ids):
        return self.encoder(self.embedding(ids), mask=self.mask(self, ids.shape[1]))


MASKS = {
    "float": lambda network, size: nn.Transformer.generate_square_subsequent_mask(size),
    "bool": lambda network, size: torch.ones(size, size, dtype=torch.bool).triu(1),
    "buffer": lambda network, size: network.later[:size, :size],
    "not causal": lambda network, size: torch.ones(size, size, dtype=torch.bool).triu(2),
}


def prepared(network, example):
    handle = qat.prepare(network, example)
    network(example)
    network.eval()
    return handle


@pytest.mark.parametrize("name", MASKS)
def test_a_transformer_with_a_mask_of_its_own_is_one_program_for_all_lengths(tmp_path, name):
    torch.manual_seed(0)
    network = Causal(MASKS[name])
    handle = prepared(network, torch.randint(30, (4, LENGTH)))
    program = qat.convert(network)
    assert handle.reads is None
    ((length,), (edge,)) = program.lengths, program.inputs
    assert (length.recorded, length.longest) == (LENGTH, LENGTH)
    emit(program, tmp_path / "model.onnx")
    assert float_ops(tmp_path / "model.onnx") == []
    session = open_session(tmp_path / "model.onnx")
    for size in range(length.shortest, LENGTH + 1):
        ids = torch.randint(30, (3, size))
        with torch.no_grad():
            expected = network(ids)
        assert torch.equal(program(ids), expected)
        assert torch.equal(run_session(session, {edge.name: ids})["output"], expected)


class Scaled(nn.Module):
    """Takes a number that it reads of a tensor of its own."""

    def __init__(self, number):
        super().__init__()
        self.embedding, self.linear, self.number = nn.Embedding(30, 4), nn.Linear(4, 4), number
        self.register_buffer("factor", torch.tensor(1.0))

    def forward(self, ids):
        x = self.linear(self.embedding(ids))
        return x * 2.0 if self.number(self, ids) > 4 else x * 3.0


def test_a_way_that_differs_at_other_lengths_is_taken_at_the_recorded_one_only(caplog):
    torch.manual_seed(0)
    network = Scaled(lambda network, ids: torch.ones(ids.shape[1]).sum().item())
    prepared(network, torch.randint(30, (4, 5)))
    with caplog.at_level(logging.WARNING, logger="qat"):
        program = qat.convert(network)
    assert "takes inputs of the recorded length only" in caplog.text
    ids = torch.randint(30, (3, 5))
    with torch.no_grad():
        assert torch.equal(program(ids), network(ids))


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_a_number_that_follows_the_batch_is_no_constant(batch):
    torch.manual_seed(0)
    network = Scaled(lambda network, ids: torch.ones(ids.shape[0]).sum().item())
    prepared(network, torch.randint(30, (batch, 5)))
    with pytest.raises(ConversionError, match="cannot follow the network at .*test_constants_read"):
        qat.convert(network)


def test_a_number_is_that_of_the_network_as_it_is_now():
    torch.manual_seed(0)
    ids = torch.randint(30, (4, 5))
    network = Scaled(lambda network, ids: 5 * network.factor.item())
    handle = prepared(network, ids)
    for factor in (1.0, 1.5):
        network.factor.fill_(factor)
        with torch.no_grad():
            assert torch.equal(qat.convert(network)(ids), network(ids))
    assert handle.runs == 3  # conversion is none


def test_the_graph_is_not_printed_where_torch_cannot_follow(capfd):
    network = Scaled(lambda network, ids: torch.ones(ids.shape[0]).sum().item())
    handle = prepared(network, torch.randint(30, (4, 5)))
    with pytest.raises(ConversionError):
        export(network, handle, any_length=True)
    assert capfd.readouterr() == ("", "")
    assert not hasattr(torch.export._trace, "print")
