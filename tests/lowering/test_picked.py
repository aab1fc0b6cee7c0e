"""Entries that integers among the inputs choose for each sample: alike in eval, in the program and in its file."""

import pytest
import torch
from torch import nn

import qat
from qat.emitters.onnxruntime import open_session, run_session
from qat.errors import ConversionError, ProgramError
from qat.integer.program import Concatenate, Gather, IndexRange, IndexTable

X = torch.randn(6, 5, 8, generator=torch.Generator().manual_seed(3))
CHOSEN = torch.tensor([4, 0, 2, 4, 1, 3])
PAIRS = torch.tensor([[4, 0], [1, 1], [2, 3], [0, 4], [3, 2], [4, 4]])
IDS = torch.tensor([[3, 5, 9, 1], [2, 9, 9, 9], [9, 1, 1, 1], [4, 4, 4, 9], [1, 9, 2, 3], [6, 7, 8, 9]])


class Choosing(nn.Module):
    def __init__(self, body):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.body = nn.Linear(8, 8), nn.LazyLinear(3), body

    def forward(self, x, chosen):
        return self.last(self.body(self.first(x), chosen))


class LastToken(nn.Module):
    """The state at the first end-of-text token, as text encoders take it."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.words, self.last = nn.Embedding(10, 8), nn.Linear(8, 3)

    def forward(self, ids):
        x = self.words(ids)
        return self.last(x[torch.arange(x.shape[0]), (ids == 9).int().argmax(-1)])


def rows(x, chosen):
    return x[torch.arange(x.shape[0]), chosen]


BODIES = {
    "a_row_of_each": (rows, CHOSEN),
    "the_row_before": (lambda x, chosen: rows(x, chosen - 1), CHOSEN),  # of the first: the last one
    "counted_from_the_end": (lambda x, chosen: rows(x, -chosen - 1), CHOSEN),
    "pairs_of_rows": (lambda x, chosen: x[torch.arange(x.shape[0])[:, None], chosen].flatten(1), PAIRS),
    "clamped": (lambda x, chosen: rows(x, chosen.clamp(max=2)), CHOSEN),
    "of_a_function": (lambda x, chosen: rows(x.sigmoid(), chosen), CHOSEN),
    "of_relu": (lambda x, chosen: rows(x.relu(), chosen), CHOSEN),
    "gathered": (lambda x, chosen: x.gather(1, chosen[:, None, None].expand(-1, 1, 8))[:, 0], CHOSEN),
    "gathered_from_the_last": (lambda x, chosen: x[:, :2].gather(2, chosen[:, :, None]).flatten(1), PAIRS),
    "gathered_before": (lambda x, chosen: x.gather(1, (chosen % 3)[:, None, None].expand(-1, 1, 8)), CHOSEN),
}  # fmt: skip


def assert_alike(network, inputs, path, quant="w8a8"):
    """Eval forward, program and file give the same; returns the program."""
    network(*inputs)  # the lazy layer takes its size
    qat.prepare(network, inputs, quant)
    network(*inputs)
    program = qat.convert(network.eval())
    qat.export(program, path)
    given = dict(zip((edge.name for edge in program.inputs), inputs, strict=True))
    with torch.no_grad():
        expected = network(*inputs)
    assert torch.equal(program(given), expected)
    (out,) = run_session(open_session(path), given).values()
    assert torch.equal(out, expected)
    return program


@pytest.mark.parametrize("quant", ["w8a8", "w4a4"])
@pytest.mark.parametrize("name", BODIES)
def test_eval_program_and_file_choose_the_same_entries(name, quant, tmp_path):
    body, chosen = BODIES[name]
    program = assert_alike(Choosing(body), (X, chosen), tmp_path / "model.onnx", quant)
    assert any(isinstance(operation, Gather) for operation in program.operations)


def test_the_integers_that_choose_rows_are_those_of_rows_that_are_there(tmp_path):
    program = assert_alike(Choosing(rows), (X, CHOSEN), tmp_path / "model.onnx")
    (edge,) = (edge for edge in program.inputs if edge.name == "chosen")
    assert program.value(edge.value).grid == IndexRange(5)
    with pytest.raises(ProgramError, match="5"):
        program({"x": X, "chosen": CHOSEN + 1})


def test_rows_counted_from_the_end_stand_in_front_once_more(tmp_path):
    program = assert_alike(Choosing(BODIES["the_row_before"][0]), (X, CHOSEN), tmp_path / "model.onnx")
    (joined,) = (operation for operation in program.operations if isinstance(operation, Concatenate))
    # chosen - 1 reaches from -1 to 4 for the five rows: the last row is put in front of them
    assert program.value(joined.output).shape == (6, 8)
    assert not any(isinstance(operation, IndexTable) for operation in program.operations)


def test_the_state_at_the_first_end_of_text_is_that_of_each_sample(tmp_path):
    program = assert_alike(LastToken(), (IDS,), tmp_path / "model.onnx")
    shorter = IDS[:, 1:3]
    network = LastToken()
    qat.prepare(network, IDS, "w8a8")
    network(IDS)
    network.eval()
    assert program.lengths
    assert torch.equal(qat.convert(network)({"ids": shorter}), network(shorter))


def test_integers_that_choose_no_entry_keep_their_own_refusal():
    network = Choosing(lambda x, chosen: rows(x, (chosen > 1).long()))
    network(X, CHOSEN)
    qat.prepare(network, (X, CHOSEN), "w8a8")
    network(X, CHOSEN)
    with pytest.raises(ConversionError, match="input 'chosen': the input takes integers of torch.int64 up to 4 that"):
        qat.convert(network.eval())
