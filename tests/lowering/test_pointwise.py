"""Functions of one value become one table: eval forward, interpreter and ONNX Runtime agree on every code."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qat
from qat.integer.program import Grid, Table
from qat.lowering.pointwise import Mapped, table_builder
from qat.lowering.state import Quantized, Unlowerable

CONV = {"conv": nn.Conv2d(8, 8, 1)}


def loop(net, x):
    for step in range(3):
        x = F.silu(net.parts["conv"](x)) + torch.tanh(x - 0.1 * step)
    return x


BODIES = {  # name: (body, tables in the program, parts)
    "gelu": (lambda net, x: F.gelu(net.parts["conv"](x)), 1, CONV),
    "gelu_tanh": (lambda net, x: F.gelu(net.parts["conv"](x), approximate="tanh"), 1, CONV),
    "gelu_by_hand": (
        lambda net, x: 0.5 * x * (1.0 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0)))), 1, {},
    ),
    "silu": (lambda net, x: F.silu(net.parts["norm"](net.parts["conv"](x))), 1, CONV | {"norm": nn.BatchNorm2d(8)}),
    "hardswish_by_hand": (lambda net, x: x * F.relu6(x + 3) / 6, 1, {}),
    "in_place": (lambda net, x: F.silu(F.hardtanh(x.clone().mul_(1.5).sub_(0.7), inplace=True), inplace=True), 1, {}),
    "prelu": (lambda net, x: net.parts["slope"](net.parts["conv"](x)), 1, CONV | {"slope": nn.PReLU(8)}),
    "prelu_between": (lambda net, x: torch.sigmoid(net.parts["slope"](x - 1) * 2) * x, 1, {"slope": nn.PReLU(8)}),
    "several_ends": (
        lambda net, x: torch.cat([torch.exp(-(y := x * 0.5 - 1)), torch.sigmoid(y), F.relu(y)], 1)[:, ::3], 3, {},
    ),
    "an_end_inside": (lambda net, x: (y := torch.sigmoid(x - 1)).mean((2, 3), keepdim=True) + y * y, 2, {}),
    "gate": (lambda net, x: net.parts["conv"](x) * F.hardsigmoid(x), 1, CONV),
    "numbers_only": (lambda net, x: 1 - (-x + 2) / 3, 1, {}),
    "learned_number": (lambda net, x: torch.tanh(x * net.scale[0] + net.position[:, :1]), 1, {}),
    "scaled_sum": (lambda net, x: torch.sigmoid(torch.add(x, 3, alpha=2)), 1, {}),
    "reciprocal": (lambda net, x: 1 / (x + 0.5), 1, {}),
    "infinite": (lambda net, x: torch.log(x.detach()).clamp(min=-2.0), 1, {}),
    "loop": (loop, 6, CONV),
    "dropped": (lambda net, x: F.dropout(torch.exp(-x), 0.2, net.training).clone() * x.contiguous(), 1, {}),
}  # fmt: skip


@pytest.mark.parametrize("quant", ["w8a8", "w2a8", "w4a4"])
@pytest.mark.parametrize("name", BODIES)
def test_functions_of_one_value_are_one_table(name, quant, assert_agreement):
    body, tables, parts = BODIES[name]
    program = assert_agreement(body, 8 * 64, parts, quant)
    assert sum(isinstance(operation, Table) for operation in program.operations) == tables


def test_a_table_has_the_function_of_every_code(trained_network):
    network, _ = trained_network(lambda net, x: torch.sigmoid(net.parts["conv"](x)), 8 * 64, CONV)
    program = qat.convert(network)
    (table,) = (operation for operation in program.operations if isinstance(operation, Table))
    source, target = (program.value(name).grid for name in (table.inputs[0], table.output))
    reals = (torch.arange(source.quant_min, source.quant_max + 1).double() - source.zero_point) * source.scale
    expected = torch.round(torch.sigmoid(reals) / target.scale) + target.zero_point
    assert table.codes.tolist() == expected.clamp(target.quant_min, target.quant_max).tolist()


def test_slopes_for_each_channel_are_a_row_for_each(trained_network):
    parts = CONV | {"slope": nn.PReLU(8)}
    network, _ = trained_network(lambda net, x: net.parts["slope"](net.parts["conv"](x)), 8 * 64, parts)
    (table,) = (operation for operation in qat.convert(network).operations if isinstance(operation, Table))
    assert table.codes.shape == (8, 256)


def test_a_function_that_is_no_number_somewhere_is_refused_with_the_remedy():
    grid = Grid(0.125, 0, 0, 2)
    roots = torch.sqrt(torch.tensor([-0.125, 0.0, 0.125], dtype=torch.float64))
    build = table_builder(None, Mapped(Quantized("x", (3,), grid, "conv.output"), roots))
    with pytest.raises(Unlowerable, match=r"not a number for some of the values conv\.output can have; clamp them to"):
        build("table", "table", grid, 0, 2)
