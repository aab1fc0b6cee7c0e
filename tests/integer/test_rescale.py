"""Sums are rescaled alike, whichever way is taken."""

import pytest
import torch

from qat.integer import rescale as module
from qat.integer.builder import ProgramBuilder
from qat.integer.fixed_point import requantize_product
from qat.integer.interpreter import run
from qat.integer.rescale import rescale
from qat.integer.values import Grid, Weight, WeightGrid, float32

BYTE = Grid(1.0, 3, 0, 255)


@pytest.mark.parametrize("scale", [0.5, 0.013])
def test_large_and_small_values_are_rescaled_alike(scale, monkeypatch):
    codes = torch.tensor([[3, -2], [-1, 2], [100, 27]], dtype=torch.int8)
    weight = Weight(codes, WeightGrid(8), torch.full((3,), float32(scale)))
    builder = ProgramBuilder()
    bias = torch.tensor([5, -7, 900], dtype=torch.int32)
    builder.output("y", builder.linear("fc", builder.input("x", (2,), BYTE), weight, BYTE, bias=bias))
    program = builder.build()
    inputs = {"x": torch.cartesian_prod(torch.arange(256), torch.arange(256)).to(torch.uint8)}
    together = run(program, inputs)["fc"]
    monkeypatch.setattr(module, "_WORTHWHILE", 2**40)
    assert torch.equal(together, run(program, inputs)["fc"])


def test_what_was_proven_is_kept_with_the_operation():
    builder = ProgramBuilder()
    builder.output("y", builder.requantize("r", builder.input("x", (5000,), BYTE), Grid(float32(0.7), 0, 0, 255)))
    operation = builder.build().operations[0]
    target = Grid(float32(0.7), 0, 0, 255)
    sums = torch.arange(5000, dtype=torch.int32)[None]
    first = rescale(sums, operation, target, requantize_product)
    kept = module._made[operation][target]
    assert torch.equal(rescale(sums, operation, target, requantize_product), first)
    assert module._made[operation][target] is kept
