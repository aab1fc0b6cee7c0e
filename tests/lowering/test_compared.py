"""Integers among the inputs compared with several: masks of lengths and classes, alike in eval, program and file."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qat
from qat.emitters.onnxruntime import open_session, run_session
from qat.errors import ConversionError
from qat.integer.program import IndexRange, IndexSum

X = torch.randn(6, 5, 8, generator=torch.Generator().manual_seed(3))
LENGTHS = torch.tensor([5, 3, 1, 4, 2, 5])
OTHERS = torch.tensor([0, 3, 2, 2, 4, 5])


class Compared(nn.Module):
    def __init__(self, body):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.body = nn.Linear(8, 8), nn.Linear(8, 3), body
        self.steps = nn.Parameter(torch.randn(5))

    def forward(self, x, lengths, others):
        return self.last(self.body(self.first(x), lengths, others))


def places(x):
    return torch.arange(x.shape[1])


BODIES = {
    "places_before_the_length": lambda x, n, m: x * (places(x) < n[:, None]).unsqueeze(-1).float(),
    "the_length_after_the_places": lambda x, n, m: x * (n[:, None] > places(x))[..., None],
    "at_least": lambda x, n, m: x.masked_fill((places(x) >= n[:, None])[..., None], 0.0),
    "the_last_place": lambda x, n, m: x * (places(x) == n[:, None] - 1)[..., None],
    "all_but_one": lambda x, n, m: x * (places(x) != m[:, None])[..., None].float(),
    "at_most_the_double": lambda x, n, m: x * (places(x) <= 2 * m[:, None])[..., None],
    "negative_constants": lambda x, n, m: x * (places(x) - 2 < n[:, None] - 3)[..., None],
    "two_inputs": lambda x, n, m: x * (n < m)[:, None, None],
    "two_inputs_each_a_function": lambda x, n, m: x * (n % 3 >= 2 - m)[:, None, None].float(),
    "between_two": lambda x, n, m: x * ((places(x) >= m[:, None]) & (places(x) < n[:, None]))[..., None],
    "in_attention": lambda x, n, m: (
        (x @ x.transpose(1, 2)).masked_fill(~(places(x) < n[:, None])[:, None], -1e9).softmax(-1) @ x
    ),
    "classes": lambda x, n, m: x + F.one_hot(n, 8).float()[:, None],
}


def prepared(body, quant="w8a8", target="onnxruntime"):
    network = Compared(body)
    qat.prepare(network, (X, LENGTHS, OTHERS), quant, target)
    network(X, LENGTHS, OTHERS)
    return network.eval()


def given_to(program, lengths=LENGTHS):
    inputs = {"x": X, "lengths": lengths, "others": OTHERS}
    return {edge.name: inputs[edge.name] for edge in program.inputs}


@pytest.mark.parametrize("quant", ["w8a8", "w4a4"])
@pytest.mark.parametrize("name", BODIES)
def test_eval_program_and_file_agree_on_every_code(name, quant, tmp_path):
    network = prepared(BODIES[name], quant)
    program = qat.convert(network)
    qat.export(program, tmp_path / "model.onnx")
    with torch.no_grad():
        expected = network(X, LENGTHS, OTHERS)
    assert torch.equal(program(given_to(program)), expected)
    (out,) = run_session(open_session(tmp_path / "model.onnx"), given_to(program)).values()
    assert torch.equal(out, expected)


def test_a_comparison_is_a_table_of_a_difference():
    program = qat.convert(prepared(BODIES["places_before_the_length"]))
    (difference,) = (operation for operation in program.operations if isinstance(operation, IndexSum))
    # lengths from 0 to 5 minus the places 0 to 4, and 4 more so that none is negative: 0 to 9
    assert program.value(difference.output).grid == IndexRange(10)
    (edge,) = (edge for edge in program.inputs if edge.name == "lengths")
    assert program.value(edge.value).grid == IndexRange(6)


def test_every_length_has_its_mask():
    network = prepared(BODIES["places_before_the_length"])
    program = qat.convert(network)
    for length in range(6):
        lengths = torch.full((6,), length)
        assert torch.equal(program(given_to(program, lengths)), network(X, lengths, OTHERS))


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (lambda x, n, m: x * (n[:, None] < 1.5 * places(x))[..., None], "integers among the inputs with real numbers"),
        (lambda x, n, m: x * ((n > 2)[:, None] == places(x).clamp(max=1))[..., None], "no row of an embedding"),
    ],
)
def test_what_has_no_integer_form_is_named(body, sentence):
    network = prepared(body, target=None)
    with pytest.raises(ConversionError, match=sentence):
        qat.convert(network)
