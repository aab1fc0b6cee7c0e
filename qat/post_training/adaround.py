"""Rounding that is learned: up or down for each weight, so that the layer's outputs are kept best (arXiv:2004.10568).

The outputs of a layer are linear in its weights, so their mean squared error over all calibration data is a quadratic
function of the rounding, and the second moments of the inputs are all it needs: every step sees all data at once, and
costs the same for a hundred images as for a hundred thousand. The activation behind the layer, which section 3.4 of
the paper takes into the error, is left out for that. As there, inputs are the quantized ones, of layers rounded before.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from qat.functional import along_axis, from_rows, rows
from qat.post_training.moments import Moments
from qat.post_training.options import AdaRound
from qat.post_training.rows import Geometry
from qat.quantizers import FakeQuantize

#: The sigmoid is stretched to this and clamped to 0..1, so that it reaches both ends (arXiv:1712.01312).
STRETCH = (-0.1, 1.1)

#: A weight that is to be rounded to its other neighbour is moved across the middle between the two, by this share of a
#: step: enough for rounding in float32 to give the learned code, and the weight is hardly another one.
ACROSS = 1 / 16


#: A flip counts where it takes off this share of an output's error: what is less is no more than rounding of sums.
FLIP_GAIN = 1e-9


@dataclass(frozen=True)
class _Grid:
    """The grid of a weight, entry by entry. scale, zero_point: of the matrix, (groups, O, I). half: 1/2 on mid-rise."""

    scale: Tensor
    zero_point: Tensor
    quant_min: int
    quant_max: int
    half: float

    @classmethod
    def of(cls, quantizer: FakeQuantize, weight: Tensor, geometry: Geometry) -> "_Grid":
        parameters = quantizer.qparams()
        scale, zero_point = (
            geometry.matrix(_entry_by_entry(values.float(), quantizer, weight))
            for values in (parameters.scale, parameters.zero_point)
        )
        half = 0.5 if parameters.midrise else 0.0
        return cls(scale, zero_point, parameters.quant_min, parameters.quant_max, half)

    def steps(self, real: Tensor) -> Tensor:
        """Real weights as codes that are neither rounded nor clamped."""
        return real / self.scale - self.half + self.zero_point

    def clamped(self, codes: Tensor) -> Tensor:
        """Codes inside of the grid."""
        return codes.clamp(self.quant_min, self.quant_max)

    def real(self, codes: Tensor) -> Tensor:
        """The weights that codes stand for."""
        return (codes - self.zero_point + self.half) * self.scale


def learned_rounding(
    weight: Tensor, quantizer: FakeQuantize, geometry: Geometry, moments: Moments, options: AdaRound
) -> Tensor:
    """`weight` with those entries moved that are better rounded the other way, so that rounding gives the learned code.

    moments: second moments of the layer's inputs and wanted outputs. Outputs that plain rounding keeps better than the
    learned one stay as they are, so that none gets worse.
    """
    grid = _Grid.of(quantizer, weight, geometry)
    steps = grid.steps(geometry.matrix(weight.detach().float()))
    plain = torch.round(steps)
    learned = _flipped(_learned_codes(steps, grid, moments, options), torch.floor(steps), grid, moments)
    before, after = (moments.squared_error(grid.real(grid.clamped(codes))) for codes in (plain, learned))
    codes = torch.where((after < before).unsqueeze(-1), learned, plain)
    moved = grid.real(codes + (steps - codes).clamp(-0.5 + ACROSS, 0.5 - ACROSS))
    changed = grid.clamped(codes) != grid.clamped(plain)
    return torch.where(geometry.weight(changed, weight), geometry.weight(moved, weight).to(weight.dtype), weight)


def _learned_codes(steps: Tensor, grid: _Grid, moments: Moments, options: AdaRound) -> Tensor:
    """The codes, unclamped, to which `steps` (groups, O, I) are rounded up or down."""
    below = torch.floor(steps)
    plain = grid.real(grid.clamped(torch.round(steps)))
    # the error of plain rounding and its slope there are taken in float64: what is learned is a small difference
    error = moments.squared_error(plain)
    slope = (2 * (plain.double() @ moments.gram - moments.cross) / moments.count).float()
    curvature = (2 * moments.gram / moments.count).float()
    importance = torch.where(error > 0, steps.shape[-1] / error, 0.0).float().unsqueeze(-1)
    low, high = STRETCH
    share = (steps - below - low) / (high - low)
    logits = torch.logit(share).requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=options.learning_rate)
    with torch.enable_grad():
        for iteration in range(options.iterations):
            up = (torch.sigmoid(logits) * (high - low) + low).clamp(0.0, 1.0)
            change = grid.real(grid.clamped(below + up)) - plain
            gradient = importance * (change.detach() @ curvature + slope)
            loss = (gradient * change).sum()
            beta = _beta(iteration, options)
            if beta is not None:
                loss = loss + options.regularization * (1 - (2 * up - 1).abs().pow(beta)).sum()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
    return below + (logits.detach() > 0.0)


def _flipped(codes: Tensor, below: Tensor, grid: _Grid, moments: Moments) -> Tensor:
    """`codes`, each `below` or one above it, with single ones flipped while that lowers the error of their output.

    What is learned may end beside a minimum: weights whose relaxed rounding stays in the middle, and those that are
    alike. In every turn each output flips the weight that gains most, until none is left that gains anything.
    """
    curvature = 2 * moments.gram / moments.count
    diagonal = curvature.diagonal(dim1=-2, dim2=-1).unsqueeze(-2)
    slope = grid.real(grid.clamped(codes)).double() @ curvature - 2 * moments.cross / moments.count
    least = -FLIP_GAIN * moments.squared_error(grid.real(grid.clamped(codes))).unsqueeze(-1)
    for _ in range(codes.shape[-1]):
        other = 2 * below + 1 - codes
        change = (grid.real(grid.clamped(other)) - grid.real(grid.clamped(codes))).double()
        gain, place = (slope * change + diagonal * change.square() / 2).min(-1, keepdim=True)
        flips = gain < least
        if not flips.any():
            break
        step = torch.where(flips, change.gather(-1, place), 0.0)
        slope = slope + step * curvature.gather(-2, place.expand_as(slope))
        codes = torch.where(flips & _at(place, codes), other, codes)
    return codes


def _at(place: Tensor, like: Tensor) -> Tensor:
    """Whether each column of `like` (groups, O, I) is the one at `place` (groups, O, 1)."""
    return torch.arange(like.shape[-1], device=like.device) == place


def _beta(iteration: int, options: AdaRound) -> float | None:
    """The exponent of the regularization in one step, along half a cosine; None while it has not begun."""
    warm_up = options.warm_up * options.iterations
    if iteration < warm_up:
        return None
    first, last = options.beta
    share = (iteration - warm_up) / (options.iterations - warm_up)
    return last + 0.5 * (first - last) * (1 + math.cos(math.pi * share))


def _entry_by_entry(values: Tensor, quantizer: FakeQuantize, weight: Tensor) -> Tensor:
    """What a quantizer has for each scale, for each entry of its weight."""
    group = quantizer.spec.group_size
    if group is None:
        return along_axis(values, weight.dim(), quantizer.axis).expand_as(weight)
    grouped = rows(weight, quantizer.axis, group)
    return from_rows(values.unsqueeze(-1).expand_as(grouped), weight.shape, quantizer.axis)
