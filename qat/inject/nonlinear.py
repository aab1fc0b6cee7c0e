"""Operations of an integer program that are no sums of products, between two grids: for the eval forward and lowering.

Each function returns what makes the operation once its output grid is known; names are for the lowering to fill in.
"""

from qat.inject.normalizations import Normalization
from qat.integer.program import (
    Divide,
    LogSoftmax,
    LogSoftmaxFactors,
    Multiplier,
    Normalize,
    NormalizeFactors,
    Ratio,
    Requantize,
    Softmax,
    SoftmaxFactors,
)
from qat.integer.values import Grid


def softmax_between(source: Grid, is_log: bool, dim: int, count: int):
    """A softmax, or its logarithm, over `count` elements of dimension `dim`."""

    def make(grid: Grid, clamp_min: int, clamp_max: int, operands: int = 1, **names):
        kind, factors = (LogSoftmax, LogSoftmaxFactors) if is_log else (Softmax, SoftmaxFactors)
        return kind(
            **(names or _unnamed(operands)), clamp_min=clamp_min, clamp_max=clamp_max, dim=dim,
            factors=factors.from_grids(source, grid, count),
        )  # fmt: skip

    return make


def normalize_between(source: Grid, norm: Normalization):
    """A layer, RMS, group or instance norm of a value that is viewed as `norm.view`."""

    def make(grid: Grid, clamp_min: int, clamp_max: int, operands: int = 1, **names):
        return Normalize(
            **(names or _unnamed(operands)), clamp_min=clamp_min, clamp_max=clamp_max, dims=norm.dims,
            centered=norm.centered, l2=False,
            factors=NormalizeFactors.from_grids(
                source, grid, norm.count, centered=norm.centered, epsilon=norm.epsilon, gain=norm.gain,
                shift=norm.shift,
            ),
        )  # fmt: skip

    return make


def requantize_between(source: Grid):
    """The same value on another grid."""

    def make(grid: Grid, clamp_min: int, clamp_max: int, operands: int = 1, **names):
        return Requantize(
            **(names or _unnamed(operands)), clamp_min=clamp_min, clamp_max=clamp_max,
            multiplier=Multiplier.from_scales(source.scale, 1.0, grid.scale),
        )  # fmt: skip

    return make


def divide_between(first: Grid, second: Grid):
    """One value over another."""

    def make(grid: Grid, clamp_min: int, clamp_max: int, operands: int = 2, **names):
        return Divide(
            **(names or _unnamed(operands)), clamp_min=clamp_min, clamp_max=clamp_max,
            ratio=Ratio.from_grids(first, second, grid),
        )  # fmt: skip

    return make


def _unnamed(inputs: int) -> dict:
    return {"name": "_", "source": "", "inputs": tuple(f"_{index}" for index in range(inputs)), "output": "_"}
