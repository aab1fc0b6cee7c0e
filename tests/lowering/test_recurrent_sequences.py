"""What recurrences read: sequences merged with the batch, constant ones, and states that are inputs."""

import pytest
import torch
from one_training_step import loops_of, trained
from torch import nn

import qat
from qat.emitters.onnxruntime import open_session, run_session
from qat.errors import ConversionError


class Chunks(nn.Module):
    """Layers inside of chunks, and over them: chunks, and then places in them, are merged with the batch."""

    def __init__(self):
        super().__init__()
        self.inside, self.joined = nn.GRU(4, 4, batch_first=True, bidirectional=True), nn.Linear(8, 4)
        self.over, self.head = nn.LSTM(4, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x):
        samples, chunks, places, features = x.shape
        inside = self.joined(self.inside(x.flatten(0, 1))[0]).reshape(samples, chunks, places, features) + x
        over = self.over(inside.transpose(1, 2).flatten(0, 1))[0]
        return self.head(over.reshape(samples, places, chunks, features).transpose(1, 2))


class Words(nn.Module):
    """The last states of every word's characters, of two layers: words are merged with the batch."""

    def __init__(self):
        super().__init__()
        self.characters, self.head = nn.LSTM(4, 4, 2, batch_first=True), nn.Linear(8, 3)

    def forward(self, x):
        _, (hidden, cell) = self.characters(x.flatten(0, 1))
        states = torch.cat((hidden[-1], cell.view(1, 2, -1, 4)[0, -1]), 1)
        return self.head(states.reshape(x.shape[0], x.shape[1], 8))


@pytest.mark.parametrize(("kind", "loops"), [(Chunks, 3), (Words, 2)])
def test_a_dimension_merged_with_the_batch_stays_there_in_a_loop(kind, loops, tmp_path):
    torch.manual_seed(1)
    network, x = kind(), torch.randn(8, 3, 5, 4)
    trained(network, "w8a8", x)
    program = qat.convert(network)
    with torch.no_grad():
        assert torch.equal(program(x), network(x))
    assert len(loops_of(program)) == loops
    qat.export(program, tmp_path / "model.onnx")


class Decoder(nn.Module):
    """A layer behind another's last states, that reads what is the same for every sample: zeros, or a parameter."""

    def __init__(self, kind, learned):
        super().__init__()
        self.encoder, self.decoder = kind(4, 5, batch_first=True), kind(3, 5, batch_first=True)
        self.head = nn.Linear(5, 3)
        self.queries = nn.Parameter(torch.linspace(-1, 1, 18).view(1, 6, 3)) if learned else None

    def forward(self, x):
        state = self.encoder(x)[1]
        if self.queries is None:
            return self.head(self.decoder(torch.zeros(x.shape[0], x.shape[1], 3), state)[0])
        return self.head(self.decoder(self.queries.expand(x.shape[0], -1, -1), state)[0])


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_sequence_may_be_a_constant(kind, learned, tmp_path):
    torch.manual_seed(1)
    network, x = Decoder(kind, learned), torch.randn(8, 4, 4)
    trained(network, "w8a8", x)
    program = qat.convert(network)
    with torch.no_grad():
        assert torch.equal(program(x), network(x))
        assert torch.equal(program(x[:, :2]), network(x[:, :2]))
    assert len(loops_of(program)) == 2
    qat.export(program, tmp_path / "model.onnx")


class Queries(nn.Module):
    """A constant sequence in the place of chunks, which are merged with the batch."""

    def __init__(self):
        super().__init__()
        self.first, self.layer, self.head = nn.Linear(4, 5), nn.GRU(3, 5, batch_first=True), nn.Linear(5, 3)
        self.queries = nn.Parameter(torch.linspace(-1, 1, 36).view(1, 2, 6, 3))

    def forward(self, x):
        state = torch.tanh(self.first(x)).flatten(0, 1)[None]
        queries = self.queries.expand(x.shape[0], -1, -1, -1).flatten(0, 1)
        return self.head(self.layer(queries, state)[0]).reshape(x.shape[0], 2, 6, 3)


def test_a_constant_sequence_differs_where_it_is_merged_with_the_batch(tmp_path):
    torch.manual_seed(1)
    network, x = Queries(), torch.randn(8, 2, 4)
    trained(network, "w8a8", x)
    program = qat.convert(network)
    with torch.no_grad():
        assert torch.equal(program(x), network(x))
    qat.export(program, tmp_path / "model.onnx")


def test_a_layer_that_reads_nothing_of_the_inputs_is_refused():
    class Alone(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.head = nn.GRU(3, 5, batch_first=True), nn.Linear(4, 5)

        def forward(self, x):
            return self.head(x) + self.layer(torch.ones(x.shape[0], x.shape[1], 3))[0]

    torch.manual_seed(1)
    network = Alone()
    trained(network, "w8a8", torch.randn(8, 6, 4))
    with pytest.raises(ConversionError, match="it reads nothing of the inputs, and so makes a constant; keep"):
        qat.convert(network)


class Given(nn.Module):
    """First states among the inputs, and the last ones among the outputs."""

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.LSTM(4, 5, 2, batch_first=True), nn.Linear(5, 3)

    def forward(self, x, hidden, cell):
        states = hidden.transpose(0, 1).contiguous(), cell.transpose(0, 1).contiguous()
        output, (hidden, cell) = self.layer(x, states)
        return self.head(output), hidden.transpose(0, 1), cell.transpose(0, 1)


def test_states_may_be_inputs_and_outputs_so_that_a_text_is_read_in_pieces(tmp_path):
    torch.manual_seed(1)
    network, x = Given(), torch.randn(8, 6, 4)
    states = torch.randn(8, 2, 5), torch.randn(8, 2, 5)
    qat.prepare(network, (x, *states), "w8a8")
    network(x, *states)
    program = qat.convert(network.eval()).with_integer_edges("hidden", "cell", "output_1", "output_2")
    qat.export(program, tmp_path / "model.onnx")
    first = torch.randint(0, 256, (2, 3, 2, 5), dtype=torch.uint8)
    inputs = {"x": x[:3], "hidden": first[0], "cell": first[1]}
    whole = program(inputs)
    output, hidden, cell = program(inputs | {"x": x[:3, :4]})
    rest = program({"x": x[:3, 4:], "hidden": hidden, "cell": cell})
    assert torch.equal(torch.cat((output, rest[0]), 1), whole[0])
    assert torch.equal(rest[1], whole[1]) and torch.equal(rest[2], whole[2])
    found = run_session(open_session(tmp_path / "model.onnx"), inputs)
    assert all(map(torch.equal, found.values(), whole))
