"""Constants that a mask of the inputs chooses between: the same codes in eval, in the program and in its file."""

import pytest
import torch
from torch import nn

import qat
from qat.integer.program import Select, Table
from qat.lowering.chosen import Chosen, function_of_chosen
from qat.lowering.pointwise import Mapped

IDS = torch.randint(0, 10, (6, 5), generator=torch.Generator().manual_seed(0))
KEPT = torch.arange(5) < torch.tensor([[5], [3], [1], [4], [2], [5]])  # padded behind
SMALLEST = torch.finfo(torch.float32).min


class Attending(nn.Module):
    """Scores of embedded ids (N, 5, 5), and what `bias` makes of the mask and of constants added to them."""

    def __init__(self, bias):
        super().__init__()
        torch.manual_seed(0)
        self.words, self.last, self.bias = nn.Embedding(10, 8), nn.Linear(8, 3), bias
        self.near = nn.Parameter(torch.linspace(-1, 1, 25).reshape(5, 5))
        self.far = nn.Parameter(torch.linspace(1, -0.5, 25).reshape(5, 5))

    def forward(self, ids, kept):
        x = self.words(ids)
        scores = x @ x.transpose(1, 2)
        return self.last(torch.softmax(self.bias(self, scores, kept[:, None, :]), -1) @ x)


def two_constants(net, scores, kept):
    return scores + torch.where(kept, net.near, net.far)


def two_numbers(net, scores, kept):
    return scores + torch.where(kept, 0.5, -1.5)


def left_out(net, scores, kept):
    return scores + torch.where(kept, 0.0, SMALLEST)


def a_constant_or_left_out(net, scores, kept):
    bias = torch.where(kept, net.near, SMALLEST)
    return scores.masked_fill(bias <= SMALLEST / 2, SMALLEST)


def run(bias, quant="w8a8"):
    network = Attending(bias)
    qat.prepare(network, (IDS, KEPT), quant)
    network(IDS, KEPT)
    return network.eval(), qat.convert(network)


@pytest.mark.parametrize("quant", ["w8a8", "w4a4"])
@pytest.mark.parametrize("bias", [two_constants, two_numbers, left_out, a_constant_or_left_out])
def test_eval_program_and_file_agree_on_every_code(bias, quant, tmp_path):
    network, program = run(bias, quant)
    with torch.no_grad():
        assert torch.equal(network(IDS, KEPT), program((IDS, KEPT)))
    qat.export(program, tmp_path / "model.onnx")
    report = qat.verify(program, tmp_path / "model.onnx", [(IDS, KEPT)], module=network, repeats=0)
    assert report.float_ops == ()
    assert (report.mismatches["onnxruntime"].differing, report.mismatches["fake_quant"].differing) == (0, 0)


def test_two_constants_are_selected_and_two_numbers_are_a_table_of_the_mask():
    _, program = run(two_constants)
    assert sum(isinstance(operation, Select) for operation in program.operations) == 1
    _, program = run(two_numbers)
    assert not any(isinstance(operation, Select) for operation in program.operations)
    tables = [operation for operation in program.operations if isinstance(operation, Table)]
    assert any(len(table.codes) == 2 for table in tables)


def chosen(first, second):
    mask = Mapped(root=None, points=torch.tensor([False, True]))
    return Chosen(mask, torch.tensor(first), torch.tensor(second))


def test_what_leaves_constants_as_they_are_leaves_the_choice():
    choice = chosen([1.0, 2.0], [3.0])
    assert function_of_chosen(None, "clone", (choice,)) is choice
    assert function_of_chosen(None, "exp", (choice,)) is None
    assert function_of_chosen(None, "add", (1.0, choice)) is None


def test_a_comparison_that_comes_out_differently_within_a_constant_is_no_function_of_the_mask():
    assert function_of_chosen(None, "gt", (chosen([1.0, 2.0], [3.0]), 1.5)) is None
