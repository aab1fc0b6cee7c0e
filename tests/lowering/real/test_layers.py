"""Layers of real programs and their weights."""

import torch
from torch import nn


def test_products_with_constant_matrices_are_layers(program_of):
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


def test_layers_run_in_turn_keep_one_weight(program_of):
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
