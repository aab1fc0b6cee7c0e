"""Cross-layer equalization: channels between layers scaled so that weights use their grids (arXiv:1906.04721).

With relu between them, `W2 relu(W1 x + b)` is `(W2 S) relu(S^-1 W1 x + S^-1 b)` for any positive diagonal S. The
paper's `s = sqrt(r1 / r2)`, with the largest weight of each channel in r1 and r2 (section 4.1), makes the two ranges of
every channel equal. A batch norm behind the first layer takes the factors into its weight and bias, and its own factor
counts in r1, as if it were folded. A clamp from above (relu6) is no such function, and no pair reaches across it.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from qat.inject.handle import Handle
from qat.post_training.adjustments import Adjustments
from qat.post_training.pairs import Pair, constants_of, pairs_of
from qat.schedule import QuantState

#: Layers in a row are equalized pair by pair until no factor is further from 1 than this, or so many times.
CLOSE = 1e-3
SWEEPS = 40

#: Factors stay between this and its reciprocal: a channel that is nearly zero need not become as large as the others.
LEAST_FACTOR = 2.0**-8

#: Channels that a batch norm scales to less than this share of its largest count as that large when it is folded.
LEAST_SHARE = 1e-6


def equalize(handle: Handle, adjustments: Adjustments, run: Callable[[], object]) -> list[Pair]:
    """Equalize the layers of a prepared network in eval mode; returns the pairs that were.

    run: one forward on a batch, returning its outputs. A pair counts only if scaling its channels by powers of two,
    which rounds nothing, leaves every output of that batch as it was, bit for bit.
    """
    pairs = pairs_of(handle, run)
    handle.set_state(QuantState(observe=False, fake_quantize=False))
    before = pytree.tree_leaves(run())
    pairs = [pair for pair in pairs if _commutes(pair, adjustments, run, before)]
    for _ in range(SWEEPS):
        factors = [_equalize(pair, adjustments) for pair in pairs]
        if all((factor.log2().abs() < CLOSE).all() for factor in factors):
            break
    for pair in pairs:
        if pair.norm is not None and handle.quantizers[pair.first].spec.granularity == "per_tensor":
            _fold(pair, adjustments)
    return pairs


def _commutes(pair: Pair, adjustments: Adjustments, run: Callable[[], object], before: list) -> bool:
    """Whether scaling the channels between the two layers changes nothing."""
    channels, columns = _channels(pair, adjustments), _columns(pair, adjustments)
    if columns % channels:
        return False
    powers = torch.arange(channels, device=adjustments.tensor(pair.first).device) % 4 - 2.0
    kept = {name: adjustments.tensor(name).detach().clone() for name in pair.names}
    scale(pair, torch.exp2(powers), adjustments)
    after = pytree.tree_leaves(run())
    for name, values in kept.items():
        adjustments.write(name, values)
    same = (torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in zip(before, after, strict=True))
    return all(same)


def _equalize(pair: Pair, adjustments: Adjustments) -> Tensor:
    """Scale one pair once; returns the factors (C,)."""
    first, second = ranges(pair, adjustments)
    factors = torch.where((first > 0) & (second > 0), (first / second).sqrt(), 1.0)
    factors = factors.nan_to_num(1.0, 1.0, 1.0).clamp(LEAST_FACTOR, 1 / LEAST_FACTOR)
    scale(pair, factors, adjustments)
    return factors


def ranges(pair: Pair, adjustments: Adjustments) -> tuple[Tensor, Tensor]:
    """The largest weight of each channel between the two layers: of the first, as folded, and of the second, (C,)."""
    first = pair.first_geometry.matrix(adjustments.tensor(pair.first).detach().float()).abs().amax(-1).flatten()
    if pair.norm is not None:
        multiplier, _ = constants_of(pair.norm, adjustments.tensor).affine(None)
        first = first * multiplier.abs()
    second = pair.second_geometry.matrix(adjustments.tensor(pair.second).detach().float()).abs().amax(1).flatten()
    return first, second.unflatten(0, (len(first), -1)).amax(1)


def scale(pair: Pair, factors: Tensor, adjustments: Adjustments) -> None:
    """Divide the channels between the two layers by `factors` (C,), and multiply what reads them by as much."""
    scaled = {}
    if pair.norm is None:
        scaled[pair.first] = _rows_times(pair, 1 / factors, adjustments)
        shift = pair.bias
    else:
        scaled[pair.norm.weight] = adjustments.tensor(pair.norm.weight).detach() / factors
        shift = pair.norm.bias
    if shift is not None:
        scaled[shift] = adjustments.tensor(shift).detach() / factors
    weight, geometry = adjustments.tensor(pair.second).detach(), pair.second_geometry
    matrix = geometry.matrix(weight)
    across = factors.repeat_interleave(_columns(pair, adjustments) // len(factors))
    scaled[pair.second] = geometry.weight(matrix * across.view(geometry.groups, 1, -1), weight)
    for name, values in scaled.items():
        adjustments.write(name, values)


def _fold(pair: Pair, adjustments: Adjustments) -> None:
    """Give the first layer's weight the factors of its batch norm: one step serves channels of one size best."""
    multiplier, _ = constants_of(pair.norm, adjustments.tensor).affine(None)
    factors = multiplier.abs().clamp(min=LEAST_SHARE * float(multiplier.abs().max()))
    if not (factors > 0).all():
        return
    adjustments.write(pair.first, _rows_times(pair, factors, adjustments))
    for name in (pair.bias, pair.norm.mean):
        if name is not None:
            adjustments.write(name, adjustments.tensor(name).detach() * factors)
    adjustments.write(pair.norm.weight, adjustments.tensor(pair.norm.weight).detach() / factors)


def _rows_times(pair: Pair, factors: Tensor, adjustments: Adjustments) -> Tensor:
    """The first layer's weight with each output channel multiplied."""
    weight, geometry = adjustments.tensor(pair.first).detach(), pair.first_geometry
    matrix = geometry.matrix(weight)
    return geometry.weight(matrix * factors.view(geometry.groups, -1, 1), weight)


def _channels(pair: Pair, adjustments: Adjustments) -> int:
    """How many output channels the first layer has."""
    groups, outputs, _ = pair.first_geometry.matrix(adjustments.tensor(pair.first)).shape
    return groups * outputs


def _columns(pair: Pair, adjustments: Adjustments) -> int:
    """How many inputs the rows of the second layer have, over all its groups."""
    groups, _, inputs = pair.second_geometry.matrix(adjustments.tensor(pair.second)).shape
    return groups * inputs
