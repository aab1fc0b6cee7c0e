"""The range that loses least: a search for the scale with the smallest squared error."""

import math

import torch
from torch import Tensor

from qat.functional import choose_qparams, fake_quantize, rows
from qat.spec import QuantSpec

#: Candidate ranges shrink from the full one in steps of 2^(-1/4) to 1/64 of it, then the neighbourhood of the best
#: is searched again in steps of 2^(-1/16), which is within 2.2 % of the best clipping point.
COARSE_RATIOS = tuple(2.0 ** (-step / 4) for step in range(25))
FINE_RATIOS = tuple(2.0 ** (step / 16) for step in (-3, -2, -1, 1, 2, 3))

#: At most so many values stand for a tensor (evenly spread): the error of 65,536 values is known to about 1 %,
#: and the search takes milliseconds whatever the size of an activation.
SAMPLE_SIZE = 65_536

#: Change of a sample's place from one piece to the next; a prime, and no factor of usual image sizes.
STEP = 7919


def sample(values: Tensor, size: int = SAMPLE_SIZE) -> Tensor:
    """At most `size` values of each row of `values` (..., n), evenly spread; deterministic.

    The stride has no factor in common with n, so that it does not fall into step with rows and columns of an image.
    """
    count = values.shape[-1]
    if torch.compiler.is_dynamo_compiling():
        return values if count <= size else values[..., _spread(count, size, values.device)]
    stride = -(-count // size)
    while stride > 1 and math.gcd(stride, count) != 1:
        stride += 1
    return values[..., ::stride]


def _spread(count: int, size: int, device: torch.device) -> Tensor:
    """`size` of the indices below `count`, where that is a compiler's symbol, which has no factors.

    One index of each of `size` pieces, at a place that changes from one to the next.
    """
    pieces, length = torch.arange(size, device=device), count // size
    return pieces * length + (pieces * STEP) % length


def choose_scale_mse(
    x: Tensor, spec: QuantSpec, axis: int | None = None, group_size: int | None = None
) -> tuple[Tensor, Tensor]:
    """The (scale, zero_point) with the smallest squared error on `x`, per tensor, channel (`axis`) or group.

    Returns float32 and int32 tensors of shape (), (C,) or (C, groups). Deterministic; memory for a few copies of `x`.
    """
    values = sample(rows(x.detach().float(), axis, group_size))
    minimum, maximum = values.aminmax(dim=-1)
    return search_range(values, None, minimum, maximum, spec)


def search_range(
    values: Tensor,
    weights: Tensor | None,
    minimum: Tensor,
    maximum: Tensor,
    spec: QuantSpec,
    widths: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The shrunk range of least squared error: both ends of minimum..maximum times one ratio per row.

    values: (..., n) with the rows that share a scale. weights: how often each value occurs, broadcast against
    `values`; None for once each. minimum, maximum: (...). widths: see `squared_error`.
    """
    data = (values, weights, widths)
    best = _best_ratio(data, minimum, maximum, spec, torch.ones_like(minimum), COARSE_RATIOS)
    best = _best_ratio(data, minimum, maximum, spec, best, (1.0, *FINE_RATIOS))
    return choose_qparams(minimum * best, maximum * best, spec)


def squared_error(
    values: Tensor,
    weights: Tensor | None,
    minimum: Tensor,
    maximum: Tensor,
    spec: QuantSpec,
    widths: Tensor | None = None,
) -> Tensor:
    """Squared error of `values` (..., n) on the grid that spans minimum..maximum (...), summed along each row.

    widths: of bins of which `values` are the middles, where they stand for more than themselves; inside of one that is
    not small beside a step, rounding errors take all values alike.
    """
    scale, zero_point = choose_qparams(minimum, maximum, spec)
    rounded = fake_quantize(
        values, scale.unsqueeze(-1), zero_point.unsqueeze(-1), spec.quant_min, spec.quant_max, spec.midrise
    )
    error = (rounded - values).square()
    if widths is not None:
        step = scale.unsqueeze(-1)
        inside = (rounded - values).abs() <= step / 2
        error = torch.where(inside & (2 * widths > step), step.square() / 12, error)
    return (error if weights is None else error * weights).sum(-1)


def _best_ratio(data, minimum, maximum, spec, start: Tensor, factors: tuple[float, ...]) -> Tensor:
    """The one of `start * factors`, at most 1, of least error; the first of equals."""
    values, weights, widths = data
    best = torch.ones_like(start)
    least = torch.full_like(start, torch.inf)
    for factor in factors:
        ratio = (start * factor).clamp(max=1.0)
        error = squared_error(values, weights, minimum * ratio, maximum * ratio, spec, widths)
        better = error < least
        best, least = torch.where(better, ratio, best), torch.where(better, error, least)
    return best
