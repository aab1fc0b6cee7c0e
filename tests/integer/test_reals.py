"""Real numbers to codes and back, by hand."""

import math

import torch

from qat.integer.reals import dequantize, quantize
from qat.integer.values import Grid, IndexRange


def test_halves_round_to_even_and_the_ends_saturate():
    grid = Grid(0.5, 3, 0, 15)
    real = torch.tensor([0.0, 0.25, 0.75, -0.25, 1e30, -1e30, math.inf, -math.inf])
    assert quantize(real, grid).tolist() == [3, 3, 5, 3, 15, 0, 15, 0]  # 0.5 steps to 0, 1.5 to 2


def test_codes_are_steps_from_the_zero_point():
    grid = Grid(0.5, -1, -128, 127)
    codes = torch.tensor([-128, -1, 0, 127], dtype=torch.int8)
    assert dequantize(codes, grid).tolist() == [-63.5, 0.0, 0.5, 64.0]
    assert dequantize(codes, grid).dtype == torch.float32


def test_indices_are_their_own_codes():
    ids = torch.tensor([0, 4])
    assert torch.equal(quantize(ids, IndexRange(5)), ids) and torch.equal(dequantize(ids, IndexRange(5)), ids)
