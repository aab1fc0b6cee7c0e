"""From networks whose activations stay real to their programs."""

import pytest
import torch
from torch import nn

import qat
from qat.errors import ConversionError
from qat.real.program import RealProgram


def program_of(network, x, quant="w8-weight-only"):
    torch.manual_seed(0)
    return qat.quantize(network.eval(), [x], quant=quant)


def test_a_batch_norm_goes_into_the_scales_of_the_layer_in_front_of_it():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(27, 4), nn.BatchNorm1d(4))
    network(torch.randn(8, 2, 5, 5))
    with torch.no_grad():
        network[1].weight.copy_(torch.tensor([1.0, -2.0, 0.0]))
    config = qat.QuantConfig(activations="float")
    program = program_of(network, torch.randn(2, 2, 5, 5), config)
    assert [node.function for node in program.nodes] == ["convolution", "reshape", "linear"]
    norm = network[1]
    multiplier = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    scale = network[0].weight.abs().flatten(1).amax(1) / 127 * multiplier
    assert torch.allclose(program.weights["0.weight"].scale[:, 0], scale.detach(), rtol=1e-5)
    x = torch.randn(4, 2, 5, 5)
    assert float((program(x) - network(x)).detach().abs().max()) < 0.05


def test_a_batch_norm_whose_layer_is_read_by_others_stays_a_product_and_a_sum():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)

        def forward(self, x):
            y = self.conv(x)
            return self.norm(y) + y

    program = program_of(Both(), torch.randn(2, 1, 5, 5))
    assert [node.function for node in program.nodes] == [
        "convolution", "aten.mul.Tensor", "aten.add.Tensor", "aten.add.Tensor",
    ]  # fmt: skip


def test_products_with_constant_matrices_are_layers():
    class Products(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Parameter(torch.randn(4, 6)), nn.Parameter(torch.randn(6, 3))
            self.bias = nn.Parameter(torch.randn(3))

        def forward(self, x):
            return torch.addmm(self.bias, x @ self.first, self.second)

    program = program_of(Products(), torch.randn(5, 4))
    assert [node.function for node in program.nodes] == ["linear", "linear"]
    assert [weight.shape for weight in program.weights.values()] == [(6, 4), (3, 6)]
    assert [weight.axis for weight in program.weights.values()] == [0, 0]


def test_sizes_that_follow_the_inputs_are_named_after_them():
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


def test_outputs_keep_the_structure_of_the_network():
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


def test_layers_run_in_turn_keep_one_weight():
    class Turns(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = nn.GRUCell(4, 8)

        def forward(self, x):
            hidden = x.new_zeros(x.shape[0], 8)
            for step in range(3):
                hidden = self.cell(x[:, step], hidden)
            return hidden

    program = program_of(Turns(), torch.randn(2, 3, 4), "w8-dynamic")
    assert sorted(program.weights) == ["cell.weight_hh", "cell.weight_ih"]
    assert len(program.integer_operations) == 6


def test_a_recurrence_is_refused_with_its_line():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(4, 8, batch_first=True)

        def forward(self, x):
            return self.lstm(x)[0]

    with pytest.raises(ConversionError, match=r"the recurrence in lstm at .*: such files hold no loops"):
        program_of(Recurrent(), torch.randn(2, 5, 4))


def test_code_that_asks_what_it_runs_on_is_found():
    class Asks(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 3)

        def forward(self, x):
            y = self.linear(x)
            factor = 2 if type(y) is torch.Tensor else 3
            return y * factor

    with pytest.raises(ConversionError, match="is another function than that of the eval forward"):
        program_of(Asks(), torch.randn(2, 3))


@pytest.mark.parametrize(("quant", "bound"), [("w8-dynamic", 2e-2), ("w4-weight-only", 2e-3), ("fp16", 2e-3)])
def test_the_program_is_what_the_eval_forward_computes_but_for_what_float16_rounds(quant, bound):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.LayerNorm(64), nn.Linear(64, 8)).eval()
    x = torch.randn(16, 64)
    handle = qat.prepare(network, x, quant)
    network.train()(x)
    network.eval()
    program = qat.convert(network)
    assert isinstance(program, RealProgram)
    assert float((program(x) - network(x)).detach().abs().max()) < bound
    handle.remove()
