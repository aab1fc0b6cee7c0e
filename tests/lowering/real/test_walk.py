"""Inputs, outputs and sizes of real programs, and what such programs cannot hold."""

import pytest
import torch
from torch import nn

import qat
from qat.errors import PreparationError


def test_sizes_that_follow_the_inputs_are_named_after_them(program_of):
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.linear = nn.Embedding(7, 8), nn.Linear(8, 4)

        def forward(self, ids):
            x = self.linear(self.table(ids))
            return x.reshape(x.shape[0] * x.shape[1], 4).view(x.shape[0], -1)

    program = program_of(Words(), torch.tensor([[1, 2, 6], [0, 0, 5]]))
    assert program.inputs[0].shape == ("batch", "length")
    assert (program.inputs[0].recorded, program.inputs[0].count) == ((2, 3), 7)
    assert program(torch.zeros(5, 2, dtype=torch.int64)).shape == (5, 8)


def test_masks_that_are_no_int64_come_in_as_that():
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 3)

        def forward(self, x, mask):
            return self.linear(x).masked_fill(mask, 0.0)

    torch.manual_seed(0)
    x, mask = torch.randn(2, 3), torch.tensor([[True, False, False], [False, True, True]])
    program = qat.quantize(Masked().eval(), [{"x": x, "mask": mask}], quant="fp16")
    assert [(edge.name, edge.dtype) for edge in program.inputs] == [("x", "float32"), ("mask", "int64")]
    assert program({"x": x, "mask": mask})[mask].tolist() == [0.0, 0.0, 0.0]


def test_outputs_keep_the_structure_of_the_network(program_of):
    class Several(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 3)

        def forward(self, x):
            y = self.linear(x)
            return {"scores": y, "parts": [y.relu(), None]}

    program = program_of(Several(), torch.randn(2, 3))
    assert program.output_structure == "dict"
    assert set(program(torch.randn(2, 3))) == {"scores", "parts.0"}


def test_a_recurrence_is_refused_with_its_line(program_of):
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(4, 8, batch_first=True)

        def forward(self, x):
            return self.lstm(x)[0]

    with pytest.raises(PreparationError, match=r"the recurrence in lstm at .*: such files hold no loops"):
        program_of(Recurrent(), torch.randn(2, 5, 4))
