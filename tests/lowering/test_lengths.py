"""One program for inputs of any length: equal to the eval forward, and to ONNX Runtime, at each of them."""

import logging

import pytest
import sympy
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._sympy.functions import FloorDiv

import qat
from qat.emitters.onnxruntime import emit, float_ops, open_session, run_session
from qat.errors import ProgramError
from qat.integer.lengths import Length
from qat.integer.operations import Softmax
from qat.lowering.lengths import NoLength, length_of

LONGEST = 12
SYMBOL, OTHER = sympy.Symbol("s0", integer=True, positive=True), sympy.Symbol("s1", integer=True, positive=True)
LENGTHS = {SYMBOL: Length("length", LONGEST), OTHER: Length("other", 5)}


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        (SYMBOL, "length"),
        (2 * SYMBOL + 1, "2*length+1"),
        (FloorDiv(SYMBOL - 3, 2) + 1, "(length-1)//2"),
        (FloorDiv(FloorDiv(SYMBOL - 9, 5) - 2, 2) + 1, "(length-9)//10"),
    ],
)
def test_expressions_of_one_length_are_sizes(expression, text):
    size = length_of(expression, LENGTHS)
    assert size.describe() == text
    for length in range(9, LONGEST + 1):
        assert size.at(length) == expression.subs(SYMBOL, length)


@pytest.mark.parametrize("expression", [SYMBOL * OTHER, SYMBOL + OTHER, SYMBOL**2, sympy.Max(SYMBOL, 4)])
def test_other_expressions_are_no_sizes(expression):
    with pytest.raises(NoLength, match="no multiple of one length"):
        length_of(expression, LENGTHS)


class Attention(nn.Module):
    """Positions, attention with or without a causal mask, and a mean over the length."""

    def __init__(self, causal=False, pooled=False):
        super().__init__()
        self.embedding, self.positions = nn.Embedding(20, 8), nn.Embedding(LONGEST, 8)
        self.mixing, self.norm, self.last = nn.Linear(8, 24), nn.LayerNorm(8), nn.Linear(8, 5)
        self.causal, self.pooled = causal, pooled

    def forward(self, ids):
        x = self.embedding(ids) + self.positions(torch.arange(ids.shape[1]))
        q, k, v = (part.unflatten(-1, (2, 4)).transpose(1, 2) for part in self.mixing(x).chunk(3, -1))
        mask = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool).tril() if self.causal else None
        mixed = F.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).flatten(2)
        x = self.norm(x + mixed)
        return self.last(x.mean(1) if self.pooled else x)


class Recurrent(nn.Module):
    def __init__(self, kind=nn.LSTM):
        super().__init__()
        self.recurrent = kind(4, 6, batch_first=True, bidirectional=True)
        self.last = nn.Linear(12, 3)

    def forward(self, x):
        return self.last(self.recurrent(x)[0])


def body(function, *parts):
    """A network of parts, from a function of (network, x)."""

    class Body(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = nn.ModuleList(parts)

        def forward(self, x):
            return function(self, x)

    return Body()


SEQUENCES = {
    "last token": lambda: body(lambda net, x: net.parts[0](x)[:, -1], nn.Linear(4, 3)),
    "first token": lambda: body(lambda net, x: net.parts[0](x)[:, 0], nn.Linear(4, 3)),
    "all but one": lambda: body(lambda net, x: net.parts[0](x)[:, 1:] - net.parts[0](x)[:, :-1], nn.Linear(4, 3)),
    "every second": lambda: body(lambda net, x: net.parts[0](x)[:, ::2], nn.Linear(4, 3)),
    "a class token": lambda: body(
        lambda net, x: net.parts[1](torch.cat([net.parts[0].weight[:1].expand(x.shape[0], 1, 4), x], 1)),
        nn.Linear(4, 4), nn.Linear(4, 3),
    ),
    "flattened rows": lambda: body(
        lambda net, x: net.parts[0](x.flatten(0, 1)).relu().unflatten(0, (x.shape[0], x.shape[1])), nn.Linear(4, 3)
    ),
    "features flattened": lambda: body(
        lambda net, x: net.parts[0](x).unflatten(-1, (2, 3)).transpose(1, 2).flatten(2), nn.Linear(4, 6)
    ),
    "largest": lambda: body(lambda net, x: net.parts[0](x).amax(1), nn.Linear(4, 3)),
    "sum": lambda: body(lambda net, x: net.parts[0](x).sum(1), nn.Linear(4, 3)),
    "mean kept": lambda: body(lambda net, x: net.parts[0](x) - net.parts[0](x).mean(1, keepdim=True), nn.Linear(4, 3)),
    "log softmax": lambda: body(lambda net, x: net.parts[0](x).log_softmax(-1), nn.Linear(4, 3)),
    "over the length": lambda: body(lambda net, x: net.parts[0](x).softmax(1), nn.Linear(4, 3)),
    "padded": lambda: body(lambda net, x: F.pad(net.parts[0](x), (0, 0, 1, 2)), nn.Linear(4, 3)),
    "gelu": lambda: body(lambda net, x: F.gelu(net.parts[0](x)), nn.Linear(4, 3)),
    "lstm": Recurrent,
    "gru": lambda: Recurrent(nn.GRU),
}  # fmt: skip
CONVOLUTIONS = {
    "largest of windows": lambda: nn.Sequential(
        nn.Conv1d(4, 6, 3, padding=1),
        nn.MaxPool1d(2),
        nn.ReLU(),
        nn.Conv1d(6, 3, 3, padding=1),
        nn.MaxPool1d(3, 2, 1, ceil_mode=True),
    ),
    "convolutions": lambda: nn.Sequential(
        nn.Conv1d(4, 6, 3, stride=2, padding=1), nn.BatchNorm1d(6), nn.ReLU(), nn.Conv1d(6, 5, 2), nn.MaxPool1d(2)
    ),
    "mean of positions": lambda: nn.Sequential(
        nn.Conv1d(4, 6, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(6, 3)
    ),
}


def converted(network, example):
    """A program of a network that was trained for two steps."""
    torch.manual_seed(0)
    qat.prepare(network, example)
    for _ in range(2):
        network(example).square().mean().backward()
    network.eval()
    return qat.convert(network)


def check_lengths(network, program, path, inputs):
    """Eval forward, interpreter and ONNX Runtime are equal for inputs of each length."""
    emit(program, path)
    assert float_ops(path) == []
    session, (edge,) = open_session(path), program.inputs
    for given in inputs:
        with torch.no_grad():
            expected = network(given)
        assert torch.equal(program(given), expected)
        assert torch.equal(run_session(session, {edge.name: given})["output"], expected)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("pooled", [False, True])
def test_attention_takes_any_length(tmp_path, causal, pooled):
    network = Attention(causal, pooled)
    program = converted(network, torch.randint(20, (4, LONGEST)))
    (length,) = program.lengths
    assert (length.shortest, length.recorded, length.longest) == (1, LONGEST, LONGEST)
    inputs = [torch.randint(20, (3, size)) for size in (1, 2, 7, LONGEST)]
    check_lengths(network, program, tmp_path / "model.onnx", inputs)
    for length in (0, LONGEST + 1):
        with pytest.raises(ProgramError, match=f"length is {length}; the program takes 1 to {LONGEST}"):
            program(torch.randint(20, (3, length)))


@pytest.mark.parametrize(
    "positions",
    [
        lambda ids: torch.arange(ids.size(1)).unsqueeze(0).expand_as(ids),
        lambda ids: torch.arange(ids.size(1)).expand_as(ids),
        lambda ids: torch.arange(ids.size(1)).expand_as(other=ids),
    ],
)
def test_positions_expanded_as_the_ids_are_constants(tmp_path, positions):
    parts = nn.Embedding(20, 8), nn.Embedding(LONGEST, 8), nn.Linear(8, 5)
    network = body(lambda net, ids: net.parts[2](net.parts[0](ids) + net.parts[1](positions(ids))), *parts)
    program = converted(network, torch.randint(20, (4, LONGEST)))
    (length,) = program.lengths
    assert (length.shortest, length.recorded, length.longest) == (1, LONGEST, LONGEST)
    inputs = [torch.randint(20, (batch, size)) for batch, size in ((3, 1), (1, 2), (5, 7), (2, LONGEST))]
    check_lengths(network, program, tmp_path / "model.onnx", inputs)


@pytest.mark.parametrize("name", SEQUENCES)
def test_sequences_of_features_take_any_length(tmp_path, name):
    network = SEQUENCES[name]()
    program = converted(network, torch.randn(4, LONGEST, 4))
    (length,) = program.lengths
    sizes = [size for size in (1, 2, 3, 7, LONGEST, 3 * LONGEST) if length.shortest <= size <= length.longest]
    assert len(sizes) >= 3
    check_lengths(network, program, tmp_path / "model.onnx", [torch.randn(3, size, 4) for size in sizes])


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_signals_take_any_length(tmp_path, name):
    network = CONVOLUTIONS[name]()
    program = converted(network, torch.randn(4, 4, LONGEST))
    (length,) = program.lengths
    sizes = [size for size in (4, 7, 8, LONGEST, 3 * LONGEST) if length.shortest <= size <= length.longest]
    assert len(sizes) >= 3
    check_lengths(network, program, tmp_path / "model.onnx", [torch.randn(3, 4, size) for size in sizes])


def test_where_nothing_ends_at_the_recorded_length_longer_inputs_are_taken():
    network = SEQUENCES["lstm"]()
    program = converted(network, torch.randn(4, LONGEST, 4))
    longer = torch.randn(2, 5 * LONGEST, 4)
    with torch.no_grad():
        assert torch.equal(program(longer), network(longer))


def test_attention_without_positions_ends_where_its_softmax_does(tmp_path):
    mixing = nn.MultiheadAttention(4, 2, batch_first=True)
    network = body(lambda net, x: net.parts[0](x, x, x, need_weights=False)[0], mixing)
    program = converted(network, torch.randn(4, LONGEST, 4))
    (length,) = program.lengths
    assert (length.shortest, length.longest) == (1, 1023)
    check_lengths(network, program, tmp_path / "model.onnx", [torch.randn(2, size, 4) for size in (1, 13, 1023)])


@pytest.mark.parametrize(
    "function",
    [
        lambda net, x: net.parts[0](x.transpose(1, 2)),  # features of a layer
        lambda net, x: net.parts[0](x.transpose(1, 2).flip(2)),
    ],
)
def test_a_size_that_a_layer_needs_stays_fixed(function):
    program = converted(body(function, nn.Linear(LONGEST, 3)), torch.randn(4, LONGEST, 4))
    assert [value.shape for value in program.values][0] == (LONGEST, 4)
    with pytest.raises(ProgramError, match="expected"):
        program(torch.randn(2, LONGEST - 1, 4))


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda net, x: net.parts[0](x).flip(1), "Take"),
        (
            lambda net, x: net.parts[0](x) * torch.arange(x.shape[1]).flip(0)[:, None].float(),
            "another for shorter inputs",
        ),
        (lambda net, x: net.parts[0](x) / x.shape[1], "a number that follows the length"),
        (lambda net, x: net.parts[0](x) * x.shape[1] ** -0.5, "a number that follows the length"),
        (lambda net, x: net.parts[0](x)[:, x.shape[1] % 4 :], "a number that is computed with the length"),
        (lambda net, x: F.pad(net.parts[0](x), (0, 0, 0, (5 - x.shape[1]) % 5)), "computed with the length"),
        (lambda net, x: F.instance_norm(net.parts[0](x).transpose(1, 2)), "normalizes over the length"),
    ],
)
def test_what_cannot_follow_is_said_with_its_reason(caplog, function, reason):
    network = body(function, nn.Linear(4, 3))
    with caplog.at_level(logging.WARNING, logger="qat"):
        program = converted(network, torch.randn(4, LONGEST, 4))
    assert "takes inputs of the recorded length only" in caplog.text
    assert reason in caplog.text
    assert not program.lengths
    x = torch.randn(2, LONGEST, 4)
    with torch.no_grad():
        assert torch.equal(program(x), network(x))


class TwoLengths(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(4, 8), nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, queries, memory):
        memory = self.second(memory)
        return self.last(F.scaled_dot_product_attention(self.first(queries), memory, memory))


def test_two_inputs_have_lengths_of_their_own(tmp_path):
    network, example = TwoLengths(), (torch.randn(4, 6, 4), torch.randn(4, 9, 3))
    qat.prepare(network, example)
    for _ in range(2):
        network(*example).square().mean().backward()
    network.eval()
    program = qat.convert(network)
    assert [(entry.symbol, entry.recorded) for entry in program.lengths] == [
        ("length_of_queries_1", 6),
        ("length_of_memory_1", 9),
    ]
    path = tmp_path / "model.onnx"
    emit(program, path)
    session = open_session(path)
    assert [entry.shape for entry in session.get_inputs()] == [
        ["batch", "length_of_queries_1", 4],
        ["batch", "length_of_memory_1", 3],
    ]
    for sizes in ((1, 1), (3, 9), (6, 2)):
        queries, memory = torch.randn(2, sizes[0], 4), torch.randn(2, sizes[1], 3)
        with torch.no_grad():
            expected = network(queries, memory)
        assert torch.equal(program((queries, memory)), expected)
        found = run_session(session, {"queries": queries, "memory": memory})
        assert torch.equal(found["output"], expected)


def test_equal_sizes_of_an_example_are_not_taken_for_one():
    program = converted(body(lambda net, x: net.parts[0](x), nn.Linear(4, 3)), torch.randn(4, 4, 4))
    (length,) = program.lengths
    assert length.recorded == 4
    assert program(torch.randn(4, 2, 4)).shape == (4, 2, 3)


def test_a_short_softmax_has_the_factors_of_the_long_one_it_was_recorded_with():
    network = body(lambda net, x: net.parts[0](x).softmax(1), nn.Linear(4, 3))
    program = converted(network, torch.randn(2, 1500, 4))
    short = torch.randn(64, 700, 4)
    with torch.no_grad():
        expected = network(short)
    assert torch.equal(program(short), expected)
    alone = converted(body(lambda net, x: net.parts[0](x).softmax(1), nn.Linear(4, 3)), torch.randn(2, 700, 4))
    factors = [next(o for o in p.operations if isinstance(o, Softmax)).factors for p in (program, alone)]
    assert not factors[0].matches(factors[1])


@pytest.mark.parametrize("pool", [nn.AdaptiveMaxPool1d(2), nn.AdaptiveAvgPool1d(2)])
def test_windows_that_grow_with_the_length_bind_it(tmp_path, pool):
    network = nn.Sequential(nn.Conv1d(4, 6, 3, padding=1), pool, nn.Conv1d(6, 3, 1))
    program = converted(network, torch.randn(4, 4, LONGEST))
    assert not program.lengths
    check_lengths(network, program, tmp_path / "model.onnx", [torch.randn(3, 4, LONGEST)])
