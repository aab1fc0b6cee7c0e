"""Regions of pointwise functions while a prepared network runs in eval mode: codes of the integer program's table."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from qat.inject.actions import Action
from qat.inject.calls import with_operand
from qat.inject.exact import grid_of, straight_through
from qat.inject.pointwise import evaluate
from qat.integer.program import table_codes
from qat.integer.values import Grid


@dataclass(frozen=True)
class Mapped:
    """A function of one value. root: the value in real units, on `grid`. points: the function of every code of it.

    points: float64 (n,), or (C, n) where it differs from channel to channel.
    """

    root: Tensor
    grid: Grid
    points: Tensor

    def quantize(self, real: Tensor, grid: Grid) -> Tensor:
        """The real values, float32, of the codes that the table has for the root. real: its function, unrounded."""
        with torch.no_grad():
            codes = table_codes(self.points, grid, grid.quant_min, grid.quant_max).to(real.device, torch.int64)
            steps = torch.round(self.root.float() / torch.tensor(self.grid.scale, device=real.device))
            places = steps.to(torch.int64) + (self.grid.zero_point - self.grid.quant_min)
            exact = (_looked_up(codes, places) - grid.zero_point).float() * grid.scale
        if not real.requires_grad:
            return exact
        low, high = ((code - grid.zero_point) * grid.scale for code in (grid.quant_min, grid.quant_max))
        return straight_through(real, exact, (real >= low) & (real <= high))


class Regions:
    """The functions that one forward has met so far, by the address of the call that ends them."""

    def __init__(self, quantizers):
        self.quantizers = quantizers
        self.known: dict[int, Mapped] = {}

    def follow(self, address: int, action: Action, name: str, function, args: tuple, kwargs: dict) -> Mapped | None:
        """The function that the call `name` at `address` extends by itself; None while its root has met no data."""
        region = action.region
        root_quantizer = self.quantizers[region.root]
        if not root_quantizer.ready:
            return None
        grid = grid_of(root_quantizer)
        root = next((_argument(args, kwargs, slot) for slot in region.roots), None)
        points = grid_points(grid)
        shape = points.shape
        for slot in region.roots:
            args, kwargs = with_operand(args, kwargs, slot, points)
        for slot, source in region.inner:
            if source not in self.known:
                return None
            known = self.known[source]
            root, shape = (known.root if root is None else root), max(shape, known.points.shape, key=len)
            args, kwargs = with_operand(args, kwargs, slot, known.points)
        with torch.no_grad():
            args = tuple(_on_cpu(argument) for argument in args)
            kwargs = {name: _on_cpu(argument) for name, argument in kwargs.items()}
            results = in_shape(evaluate(name, function, args, kwargs), shape)
        self.known[address] = Mapped(root, grid, results)
        return self.known[address]


def grid_points(grid: Grid) -> Tensor:
    """The real values of all codes of a grid, float64, ascending."""
    steps = torch.arange(grid.quant_min, grid.quant_max + 1, dtype=torch.float64) - grid.zero_point
    return steps * grid.scale


def in_shape(results: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Results without the dimensions that constants of one element bring along."""
    return results.reshape(shape) if results.numel() == math.prod(shape) else results


def _looked_up(codes: Tensor, places: Tensor) -> Tensor:
    if codes.dim() == 1:
        return codes[places]
    channels = torch.arange(len(codes), device=codes.device).view(-1, *[1] * (places.dim() - 2))
    return codes[channels, places]


def _argument(args: tuple, kwargs: dict, slot):
    return args[slot[1]] if slot[0] == "args" else kwargs[slot[1]]


def _on_cpu(argument):
    return argument.detach().cpu() if isinstance(argument, Tensor) else argument
