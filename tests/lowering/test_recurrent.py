"""Recurrences as integers: a loop over the steps, in each of which are the codes of the eval forward."""

import functools

import pytest
import torch
from one_training_step import loops_of, trained
from torch import nn

import qat
from qat.emitters.onnxruntime import open_session, run_session
from qat.errors import ConversionError
from qat.integer.program import IntegerProgram


class Network(nn.Module):
    """Something recurrent, and a linear layer behind what `read` makes of it."""

    def __init__(self, layer, features, read):
        super().__init__()
        self.layer = layer
        self.head = nn.Linear(features, 3)
        self.read = read

    def forward(self, x):
        return self.head(self.read(self.layer, x))


class Tagger(nn.Module):
    """Cells in a loop of the network's own."""

    def __init__(self, cell):
        super().__init__()
        self.cell = cell

    def forward(self, x):
        state, outputs = None, []
        for step in x.unbind(1):
            state = self.cell(step, state)
            outputs.append(state[0] if isinstance(state, tuple) else state)
        return torch.stack(outputs, 1)


class Learned(nn.Module):
    """Layers whose first states are parameters, one for all layers."""

    def __init__(self):
        super().__init__()
        self.layers = nn.LSTM(4, 5, 2, batch_first=True)
        self.hidden = nn.Parameter(torch.linspace(-1, 1, 10).view(2, 1, 5))
        self.cell = nn.Parameter(torch.linspace(2, -1, 10).view(2, 1, 5))

    def forward(self, x):
        hidden = self.hidden.expand(-1, x.shape[0], -1).contiguous()
        return self.layers(x, (hidden, self.cell.repeat(1, x.shape[0], 1)))[0]


class Written(nn.Module):
    """A recurrence that a network writes out, from a first state that is learned."""

    def __init__(self):
        super().__init__()
        self.inputs, self.state, self.out = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.first = nn.Parameter(torch.linspace(-1, 1, 6)[None])

    def forward(self, x):
        state, outputs = self.first.expand(x.shape[0], -1), []
        for step in range(x.shape[1]):
            state = torch.tanh(self.inputs(x[:, step]) + torch.relu(self.state(state)))
            outputs.append(torch.sigmoid(self.out(state)))
        return torch.stack(outputs, 1)


def outputs(layer, x):
    return layer(x)[0]


def steps_in_front(layer, x):
    """A layer that has the batch in dimension 1, and the last step of it."""
    return layer(x.transpose(0, 1))[0][-1]


def both_ends(layer, x):
    """The last states of both directions."""
    hidden = layer(x)[1]
    return torch.cat((hidden[-2], hidden[-1]), dim=1)


def given_states(layer, x):
    """A state that is computed, in front of it the dimension of the layers."""
    state = torch.tanh(x.mean(1)[:, [0, 1, 2, 3, 0]]).unsqueeze(0)
    return layer(x, (state, state))[0]


NETWORKS = {
    "lstm": (lambda: nn.LSTM(4, 5, batch_first=True), 5, outputs),
    "gru": (lambda: nn.GRU(4, 5, batch_first=True), 5, outputs),
    "rnn_tanh": (lambda: nn.RNN(4, 5, batch_first=True), 5, outputs),
    "rnn_relu": (lambda: nn.RNN(4, 5, batch_first=True, nonlinearity="relu", bias=False), 5, outputs),
    "lstm_of_two_layers_and_directions": (
        lambda: nn.LSTM(4, 5, 2, batch_first=True, bidirectional=True, dropout=0.5), 10, outputs,
    ),
    "gru_of_two_layers_and_directions": (
        lambda: nn.GRU(4, 5, 2, batch_first=True, bidirectional=True, bias=False), 10, outputs,
    ),
    "last_step": (lambda: nn.LSTM(4, 5), 5, steps_in_front),
    "last_hidden_state": (lambda: nn.GRU(4, 5, 2, batch_first=True), 5, lambda layer, x: layer(x)[1][-1]),
    "last_cell_state": (lambda: nn.LSTM(4, 5, batch_first=True), 5, lambda layer, x: layer(x)[1][1].squeeze(0)),
    "last_states_of_both_directions": (lambda: nn.GRU(4, 5, bidirectional=True, batch_first=True), 10, both_ends),
    "last_states_by_layer_and_direction": (
        lambda: nn.GRU(4, 5, 2, bidirectional=True, batch_first=True), 5,
        lambda layer, x: layer(x)[1].view(2, 2, -1, 5)[-1][0],
    ),
    "last_states_side_by_side": (
        lambda: nn.GRU(4, 5, 2, batch_first=True), 10, lambda layer, x: layer(x)[1].transpose(0, 1).flatten(1),
    ),
    "computed_first_states": (lambda: nn.LSTM(4, 5, batch_first=True), 5, given_states),
    "encoder_and_decoder": (
        lambda: nn.ModuleList([nn.LSTM(4, 5, 2, batch_first=True), nn.LSTM(4, 5, 2, batch_first=True)]), 5,
        lambda layers, x: layers[1](x, layers[0](x)[1])[0],
    ),
    "layers_behind_with_the_batch_in_the_middle": (
        lambda: nn.ModuleList([nn.GRU(4, 5), nn.Linear(5, 6)]), 6,
        lambda layers, x: (torch.sigmoid(layers[1](layers[0](x.permute(1, 0, 2))[0])) * 2).permute(1, 0, 2),
    ),
    "lstm_cell": (lambda: Tagger(nn.LSTMCell(4, 5)), 5, lambda layer, x: layer(x)),
    "gru_cell": (lambda: Tagger(nn.GRUCell(4, 5)), 5, lambda layer, x: layer(x)),
    "rnn_cell": (lambda: Tagger(nn.RNNCell(4, 5)), 5, lambda layer, x: layer(x)),
    "learned_first_states": (Learned, 5, lambda layer, x: layer(x)),
    "written_out": (Written, 6, lambda layer, x: layer(x)),
}  # fmt: skip


@functools.cache
def made(name, quant):
    """(the network, its inputs, its program); only to be read."""
    torch.manual_seed(1)
    layer, features, read = NETWORKS[name]
    network = Network(layer(), features, read)
    x = torch.randn(32, 4, 4, generator=torch.Generator().manual_seed(2))
    trained(network, quant, x)
    return network, x, qat.convert(network)


@pytest.mark.parametrize(
    ("name", "quant"),
    [*((name, "w8a8") for name in NETWORKS), *((name, "w4a4") for name in ("lstm", "gru", "rnn_relu", "written_out"))],
)
def test_recurrences_lower_to_the_same_codes(name, quant, tmp_path):
    network, x, program = made(name, quant)
    with torch.no_grad():
        assert torch.equal(network(x), program(x))
    qat.export(program, tmp_path / "model.onnx")
    report = qat.verify(program, tmp_path / "model.onnx", [x, x[:1]], module=network, repeats=0)
    assert report.float_ops == ()
    assert {mismatch.differing for mismatch in report.mismatches.values()} == {0}


def test_a_layer_is_a_loop_behind_one_product_with_all_its_inputs():
    _, _, program = made("lstm", "w8a8")
    assert [type(operation).__name__ for operation in program.operations] == ["Linear", "Loop", "Linear"]
    (loop,) = loops_of(program)
    step = [type(operation).__name__ for operation in loop.body.operations]
    assert step.count("Linear") == 1 and step.count("Table") == 5 and step.count("Mul") == 3
    hidden, cell = (program.value(name) for name in loop.states)
    assert all(bool((state.codes == state.grid.zero_point).all()) for state in (hidden, cell))


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("lstm", 1), ("last_hidden_state", 2), ("lstm_of_two_layers_and_directions", 4), ("encoder_and_decoder", 4),
        ("learned_first_states", 2), ("lstm_cell", 0), ("written_out", 0),
    ],
)  # fmt: skip
def test_every_layer_and_direction_is_one_loop_and_a_loop_of_the_networks_own_is_none(name, count):
    _, _, program = made(name, "w8a8")
    loops = loops_of(program)
    assert len(loops) == count
    if name == "lstm_of_two_layers_and_directions":
        assert [loop.reverse for loop in loops] == [False, True] * 2


@pytest.mark.parametrize(
    "name",
    [
        "lstm", "gru", "rnn_relu", "lstm_of_two_layers_and_directions", "last_cell_state", "last_step",
        "last_states_of_both_directions", "encoder_and_decoder", "learned_first_states",
    ],
)  # fmt: skip
def test_one_file_takes_sequences_of_any_length(name, tmp_path):
    network, _, program = made(name, "w8a8")
    qat.export(program, tmp_path / "model.onnx")
    session = open_session(tmp_path / "model.onnx")
    for steps in (1, 2, 7, 20):  # 4 were recorded
        x = torch.randn(3, steps, 4, generator=torch.Generator().manual_seed(steps))
        with torch.no_grad():
            expected = network(x)
        assert torch.equal(program(x), expected)
        assert torch.equal(run_session(session, {"x": x})["output"], expected)


def test_a_layer_bounds_no_length_of_what_comes_before_it():
    class Thinned(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.layer, self.head = nn.Embedding(9, 4), nn.GRU(4, 5, batch_first=True), nn.Linear(5, 3)

        def forward(self, tokens):
            return self.head(self.layer(self.embedding(tokens)[:, ::2])[0])

    torch.manual_seed(1)
    network = Thinned()
    tokens = torch.randint(0, 9, (8, 16))
    trained(network, "w8a8", tokens)
    program = qat.convert(network)
    for count in (1, 2, 3, 20):  # of which every other is read: a single one at first
        tokens = torch.randint(0, 9, (3, count))
        with torch.no_grad():
            assert torch.equal(program(tokens), network(tokens))


def test_a_loop_is_the_same_after_it_was_stored(tmp_path):
    _, x, program = made("lstm_of_two_layers_and_directions", "w8a8")
    program.save(tmp_path)
    loaded = IntegerProgram.load(tmp_path)
    assert torch.equal(loaded(x), program(x)) and loaded.layers == program.layers


def test_weights_of_loops_are_reported_with_the_others():
    network, _, program = made("gru_of_two_layers_and_directions", "w8a8")
    weights = [layer for layer in program.layers if layer.weight_bits]
    assert len(weights) == 2 * 2 * 2 + 1  # of inputs and states, in two layers and directions, and the head
    assert sum(layer.weight_count for layer in weights) == sum(
        parameter.numel() for name, parameter in network.named_parameters() if "weight" in name
    )


def test_a_sequence_of_one_step_is_no_loop():
    torch.manual_seed(1)
    network = Network(nn.LSTM(4, 5, batch_first=True), 5, lambda layer, x: layer(x[:, -1:])[0])
    x = torch.randn(8, 6, 4)
    trained(network, "w8a8", x)
    program = qat.convert(network)
    with torch.no_grad():
        assert torch.equal(program(x), network(x))
    assert loops_of(program) == []


def test_a_loop_over_the_samples_of_a_batch_is_refused():
    torch.manual_seed(1)
    network = Network(nn.GRU(4, 5, batch_first=True), 5, lambda layer, x: layer(x.transpose(0, 1))[0].transpose(0, 1))
    trained(network, "w8a8", torch.randn(8, 6, 4))
    with pytest.raises(ConversionError, match="it steps through the batch; keep a dimension for the batch alone"):
        qat.convert(network)


def test_integers_follow_the_float_network_through_many_steps():
    torch.manual_seed(1)
    network = Network(nn.LSTM(4, 32, batch_first=True), 32, outputs)
    x = torch.randn(64, 24, 4)
    with torch.no_grad():
        wanted = network(x)
    qat.prepare(network, x)
    network(x)
    program = qat.convert(network.eval())
    error = program(x) - wanted
    assert 10 * torch.log10(wanted.square().mean() / error.square().mean()) > 30  # dB


def test_an_output_with_the_batch_in_another_place_is_refused():
    torch.manual_seed(1)
    network = Network(nn.GRU(4, 5), 5, lambda layer, x: layer(x.transpose(0, 1))[0])
    trained(network, "w8a8", torch.randn(8, 6, 4), target=None)
    with pytest.raises(ConversionError, match=r"the batch in dimension 1: .* as by .transpose\(0, 1\)"):
        qat.convert(network)
