"""Recurrences of torch as plain steps, and how they are recorded."""

import dataclasses
import itertools

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

import qat
from qat.errors import AddressError, PreparationError
from qat.inject.opened import OPENED

LAYERS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn_tanh": nn.RNN, "rnn_relu": nn.RNN}
CELLS = {"lstm": nn.LSTMCell, "gru": nn.GRUCell, "rnn_tanh": nn.RNNCell, "rnn_relu": nn.RNNCell}


class Opening(TorchFunctionMode):
    """Runs opened functions as they are written, in float."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        return OPENED.get(function, function)(*args, **(kwargs or {}))


def made(kinds, name, *args, **kwargs):
    own = {"nonlinearity": name[4:]} if name.startswith("rnn") else {}
    return kinds[name](*args, **own, **kwargs).double()


def tensors_of(result):
    return [result] if isinstance(result, torch.Tensor) else [x for entry in result for x in tensors_of(entry)]


def assert_same(layer, *inputs):
    """Results and gradients of a layer, as torch computes them and as plain steps."""
    results, gradients = [], []
    for mode in (None, Opening()):
        layer.zero_grad()
        if mode is None:
            results.append(tensors_of(layer(*inputs)))
        else:
            with mode:
                results.append(tensors_of(layer(*inputs)))
        sum(result.pow(3).sum() for result in results[-1]).backward()
        gradients.append([parameter.grad for parameter in layer.parameters()])
    for torchs, ours in zip([*results[0], *gradients[0]], [*results[1], *gradients[1]], strict=True):
        assert torchs.shape == ours.shape
        torch.testing.assert_close(ours, torchs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize(
    ("layers", "bidirectional", "bias"), [*itertools.product((1, 2), (False, True), (False, True))]
)
@pytest.mark.parametrize("name", LAYERS)
def test_layers_compute_what_torch_computes(name, layers, bidirectional, bias, batch_first):
    torch.manual_seed(1)
    layer = made(LAYERS, name, 4, 5, layers, bidirectional=bidirectional, bias=bias, batch_first=batch_first)
    x = torch.randn(3, 6, 4, dtype=torch.double)
    assert_same(layer, x)
    state = torch.randn(layers * (1 + bidirectional), 3 if batch_first else 6, 5, dtype=torch.double)
    assert_same(layer, x, (state, state.flip(-1)) if name == "lstm" else state)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("name", CELLS)
def test_cells_compute_what_torch_computes(name, bias):
    torch.manual_seed(1)
    cell = made(CELLS, name, 4, 5, bias=bias)
    x, state = torch.randn(3, 4, dtype=torch.double), torch.randn(3, 5, dtype=torch.double)
    assert_same(cell, x)
    assert_same(cell, x, (state, state.flip(-1)) if name == "lstm" else state)


def test_dropout_is_between_layers_and_in_training_alone():
    torch.manual_seed(1)
    layer = nn.GRU(4, 5, 3, dropout=0.5, batch_first=True)
    x = torch.randn(2, 3, 4)
    with Opening():
        assert not torch.equal(layer(x)[0], layer(x)[0])
        layer.eval()
        assert torch.equal(layer(x)[0], layer(x)[0])


class Network(nn.Module):
    """A recurrent layer and a linear one behind its outputs. read: of (layer, input), what is behind."""

    def __init__(self, layer, features, read=lambda layer, x: layer(x)[0]):
        super().__init__()
        self.layer = layer
        self.head = nn.Linear(features, 3)
        self.read = read

    def forward(self, x):
        return self.head(self.read(self.layer, x))


def prepared(layer, features, *read, steps=4, **options):
    network = Network(layer, features, *read)
    x = torch.randn(8, steps, 4, generator=torch.Generator().manual_seed(2))
    handle = qat.prepare(network, x, **options)
    network(x)
    return network, handle


def test_all_steps_share_their_quantizers_and_each_direction_has_its_own():
    _, one = prepared(nn.LSTM(4, 5, batch_first=True), 5)
    assert list(one.quantizers) == [
        "input.x",
        "layer.linear.output",  # of the inputs of all steps
        "layer.linear#2.output",  # of the state
        "layer.add#2.output",
        "layer.sigmoid.output",
        "layer.mul.output",
        "layer.sigmoid#2.output",
        "layer.tanh.output",
        "layer.mul#2.output",
        "layer.add#3.output",  # the cell state
        "layer.sigmoid#3.output",
        "layer.tanh#2.output",
        "layer.mul#3.output",  # the hidden state, and the outputs
        "head.output",
        "layer.weight_ih_l0",
        "layer.weight_hh_l0",
        "head.weight",
    ]
    assert one.quantizers["layer.weight_hh_l0"].qparams().scale.shape == (20,)
    _, two = prepared(nn.LSTM(4, 5, batch_first=True, bidirectional=True), 10)
    # both directions read one input and join in one output, in front of one head
    assert len(two.quantizers) == 2 * len(one.quantizers) - 4


def test_hidden_and_cell_states_have_a_grid_each():
    def read(layer, x):
        hidden, cell = layer(x)[1]
        return hidden[-1] + cell[-1]

    _, handle = prepared(nn.LSTM(4, 5, batch_first=True), 5, read)
    cells = next(site for site in handle.plan.sites.values() if "layer.add#3" in site.shares)
    assert cells.name == "layer.add#3.output" and "layer.mul#3" not in cells.shares


def test_layers_have_grids_of_their_own_where_nobody_reads_their_last_states():
    _, unread = prepared(nn.LSTM(4, 5, 2, batch_first=True), 5)
    assert {"layer.add#3.output", "layer.add#6.output"} <= set(unread.quantizers)
    _, read = prepared(nn.LSTM(4, 5, 2, batch_first=True), 5, lambda layer, x: layer(x)[1][1][-1])
    assert "layer.add#6.output" not in read.quantizers
    assert "layer.add#6" in read.plan.sites["layer.add#3.output"].shares


def test_a_rule_for_the_kind_of_layer_reaches_everything_in_it():
    config = dataclasses.replace(qat.QuantConfig.parse("w8a8"), rules=(qat.Rule(type="GRU", weight_bits=4),))
    _, handle = prepared(nn.GRU(4, 5, batch_first=True), 5, quant=config)
    bits = {name: quantizer.spec.bits for name, quantizer in handle.quantizers.items() if quantizer.role == "weight"}
    assert bits == {"layer.weight_ih_l0": 4, "layer.weight_hh_l0": 4, "head.weight": 8}


@pytest.mark.parametrize("name", LAYERS)
def test_a_network_runs_sequences_of_other_lengths_than_recorded(name):
    torch.manual_seed(1)
    layer = made(LAYERS, name, 4, 5, 2, batch_first=True).float()
    network, _ = prepared(layer, 5)
    for steps in (2, 4, 9):
        x = torch.randn(8, steps, 4)
        assert network(x).shape == (8, steps, 3)
        assert network.eval()(x).shape == (8, steps, 3)
        network.train()


def test_first_states_made_of_parameters_are_on_the_grids_of_those_that_follow():
    class Learned(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.head = nn.LSTM(4, 5, 2, batch_first=True), nn.Linear(5, 3)
            self.hidden, self.cell = nn.Parameter(torch.ones(2, 1, 5)), nn.Parameter(torch.ones(2, 1, 5))

        def forward(self, x):
            states = (state.expand(-1, len(x), -1).contiguous() for state in (self.hidden, self.cell))
            return self.head(self.layer(x, tuple(states))[0])

    learned = qat.prepare(Learned(), torch.randn(8, 4, 4))
    _, zeros = prepared(nn.LSTM(4, 5, 2, batch_first=True), 5)
    assert learned.sequences == zeros.sequences
    assert [*learned.quantizers] == [*zeros.quantizers]


def test_more_steps_than_one_are_refused_where_one_was_recorded():
    network, _ = prepared(nn.GRU(4, 5, batch_first=True), 5, steps=1)
    with pytest.raises(AddressError, match="did not when the network was recorded"):
        network(torch.randn(8, 2, 4))


@pytest.mark.parametrize("quant", ["w8a8", "w4a4"])
@pytest.mark.parametrize("name", LAYERS)
def test_gradients_reach_every_parameter_through_the_quantizers(name, quant):
    torch.manual_seed(1)
    layer = made(LAYERS, name, 4, 5, 2, bidirectional=True, batch_first=True).float()
    network, handle = prepared(layer, 10, quant=quant)
    network(torch.randn(8, 4, 4)).square().sum().backward()
    for parameter in (*network.parameters(), *handle.parameters()):
        assert parameter.grad is not None and bool(torch.isfinite(parameter.grad).all())
    assert all(bool((parameter.grad != 0).any()) for parameter in network.parameters())


def test_gradients_are_those_of_float_but_for_the_rounding():
    torch.manual_seed(1)
    layer = nn.LSTM(4, 16, batch_first=True)
    x = torch.randn(32, 5, 4)
    layer(x)[0].square().sum().backward()
    wanted = [parameter.grad.clone() for parameter in layer.parameters()]
    layer.zero_grad()
    network = Network(layer, 16)
    qat.prepare(network, x)
    outputs = []
    network.head.register_forward_pre_hook(lambda part, inputs: outputs.append(inputs[0]))
    network(x)
    outputs[0].square().sum().backward()
    for parameter, gradient in zip(layer.parameters(), wanted, strict=True):
        assert torch.nn.functional.cosine_similarity(parameter.grad.flatten(), gradient.flatten(), dim=0) > 0.999


def test_packed_sequences_are_refused_with_the_way_out():
    class Packed(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.GRU(4, 5, batch_first=True)

        def forward(self, x):
            return self.layer(nn.utils.rnn.pack_padded_sequence(x, [3] * len(x), batch_first=True))[1][0]

    with pytest.raises(PreparationError, match="reads a PackedSequence, .* give it the padded tensor"):
        qat.prepare(Packed(), torch.randn(2, 3, 4))


def test_projections_are_refused_with_the_way_out():
    with pytest.raises(PreparationError, match="with projections .* leave proj_size at 0"):
        qat.prepare(Network(nn.LSTM(4, 5, proj_size=2, batch_first=True), 2), torch.randn(2, 3, 4))
