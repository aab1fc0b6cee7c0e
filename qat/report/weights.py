"""The integer weights of a program, as a report looks at them."""

from typing import NamedTuple

import torch
from torch import Tensor

from qat.integer.program import IntegerProgram

#: Most bars of one histogram, what a small picture can show apart; wider grids have bars of several codes.
MAX_BARS = 64


class LayerWeights(NamedTuple):
    """codes: integers of `bits` bits, (O, ...). scale: real units per code, (O,), one per output channel."""

    codes: Tensor
    bits: int
    scale: Tensor

    @property
    def per_tensor(self) -> bool:
        """Whether all of several output channels share one scale."""
        return self.scale.numel() > 1 and bool((self.scale == self.scale[0]).all())


class Histogram(NamedTuple):
    """shares: part of the weights in each bar. first_code: leftmost code. codes_per_bar: 1 up to `MAX_BARS` codes."""

    shares: list[float]
    first_code: int
    codes_per_bar: int


def weight_codes(program: IntegerProgram) -> dict[str, LayerWeights]:
    """Layer -> its integer weights, in the order of the program; a layer that is called twice appears once."""
    layers: dict[str, LayerWeights] = {}
    for operation in program.weighted():
        weight = operation.weight
        scale = weight.scale * weight.grid.step
        layers.setdefault(operation.source or operation.name, LayerWeights(weight.codes, weight.grid.bits, scale))
    return layers


def histogram(weights: LayerWeights) -> Histogram:
    """How the weights use their grid of 2^bits codes."""
    first_code = -(2 ** (weights.bits - 1))
    codes_per_bar = max(1, 2**weights.bits // MAX_BARS)
    positions = (weights.codes.flatten().to(torch.int64) - first_code) // codes_per_bar
    counts = torch.bincount(positions, minlength=2**weights.bits // codes_per_bar)
    return Histogram([count / positions.numel() for count in counts.tolist()], first_code, codes_per_bar)
