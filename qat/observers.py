"""What range was seen: statistics of the values a quantizer met, and the scale they ask for.

Every observer averages over batches in the same way: the n-th batch counts 1/n until that falls to `momentum`, and
`momentum` from then on. So a handful of batches (post-training quantization) is a plain mean, and a long training
forgets what the network was like a few hundred steps ago. No random numbers are used.
"""

import torch
from torch import Tensor, nn

from qat.errors import ObservationError
from qat.functional import Grid, choose_qparams, rows
from qat.range_search import sample, search_range, squared_error
from qat.spec import QuantSpec

#: Weight of a new batch in the long run, about the last hundred batches: long against the noise of a batch, short
#: against the change of a network within an epoch.
MOMENTUM = 0.01

#: Bins of a histogram, on either side of 0: those of a floating-point format, so many octaves from the largest value
#: down, each in so many equal parts. A bin is then 1.6 to 3.1 % of its values wide, however far outliers lie away.
OCTAVES = 32
PART_BITS = 5
PARTS = 2**PART_BITS
BINS = 2 * OCTAVES * PARTS

#: Values of a batch counted in a histogram, per scale and evenly spread: a quarter of a millisecond on a CPU, whatever
#: the size of the batch; a rare value missed in one batch is met in the next ones. Where the range itself comes from
#: the histogram there may be one batch only, and the tails of 8-bit grids want more.
HISTOGRAM_SAMPLE = 16_384
RANGE_SAMPLE = 262_144

#: Percentage of the values that `PercentileObserver` keeps inside the range, on each side, where nothing else is said.
PERCENTILE = 99.99

#: Candidates for each end of the range of `HistogramObserver`: from all of it down to 1/64.
END_RATIOS = tuple(2.0 ** (-step / 4) for step in range(25))


class Observer(nn.Module):
    """Statistics of batches, one row per scale; they are buffers, so a `state_dict` holds them exactly.

    name: whose values these are, for errors. shape: of the scale, () or (C,) or (C, groups). axis, group_size: see
    `functional.rows`. momentum: weight of a new batch in the long run; 1.0 keeps the last batch only (weights).
    """

    statistics: tuple[str, ...] = ()

    def __init__(
        self,
        name: str,
        shape: tuple[int, ...] = (),
        axis: int | None = None,
        group_size: int | None = None,
        momentum: float = MOMENTUM,
    ):
        super().__init__()
        self.name = name
        self.axis = axis
        self.group_size = group_size
        self.momentum = momentum
        self.register_buffer("minimum", torch.zeros(shape))
        self.register_buffer("maximum", torch.zeros(shape))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))
        self.register_buffer("bad_batches", torch.zeros((), dtype=torch.int64))
        self.forward_so_far: dict[str, Tensor] | None = None

    def begin_forward(self) -> None:
        """Take what is observed until `end_forward` for one batch: a grid may have several producers in a forward."""
        self.forward_so_far = {}

    def end_forward(self) -> None:
        """Take the next observation for a batch of its own."""
        self.forward_so_far = None

    def observe(self, x: Tensor, enabled: Tensor | None = None) -> None:
        """Take in one batch. x: real, not empty. enabled: bool tensor that decides on the device, for compiled code.

        Raises `ObservationError` for an empty batch, and for NaN or infinity: at once on a CPU; elsewhere such a batch
        is left out and counted, and `check` raises, since looking at once would stall the device.
        """
        if x.numel() == 0:
            raise ObservationError(
                f"{self.name} met an empty batch of shape {tuple(x.shape)} while observing; drop empty batches."
            )
        values = x.detach().float()
        minimum, maximum = self._extremes(values)
        usable = torch.isfinite(minimum).all() & torch.isfinite(maximum).all()
        if torch.compiler.is_compiling() or x.device.type != "cpu":
            wanted = enabled if enabled is not None else torch.ones_like(usable)
            self.bad_batches.add_(wanted & ~usable)
            self._store(self._updated(values, minimum, maximum), usable & wanted)
            return
        if not usable:
            raise self._not_finite(values)
        self._store(self._updated(values, minimum, maximum), None)

    def check(self) -> None:
        """Raise `ObservationError` if a batch with NaN or infinity was left out since the last call."""
        count = int(self.bad_batches)
        if count:
            self.bad_batches.zero_()
            raise ObservationError(
                f"{self.name} met NaN or infinity in {count} batches while observing and left them out; "
                "lower the learning rate or look for the layer that overflows."
            )

    @property
    def has_observed(self) -> bool:
        """Whether there are statistics at all."""
        return int(self.batches) > 0

    def qparams(self, spec: QuantSpec | Grid) -> tuple[Tensor, Tensor]:
        """The (scale, zero_point) of `spec`'s grid for what was seen: float32 and int32, of the scale's shape."""
        return choose_qparams(self.minimum, self.maximum, spec)

    def _updated(self, values: Tensor, minimum: Tensor, maximum: Tensor) -> dict[str, Tensor]:
        """The statistics after a batch with these extremes per scale, by buffer name."""
        raise TypeError(f"{type(self).__name__} observes nothing; use one of its subclasses.")

    def _share_of_new(self) -> Tensor:
        """The weight of the batch that comes now."""
        return (1.0 / (self.batches + 1)).clamp(min=self.momentum)

    def _extremes(self, values: Tensor) -> tuple[Tensor, Tensor]:
        if self.axis is None:
            return torch.aminmax(values)  # one pass, whatever the memory layout
        return torch.aminmax(rows(values, self.axis, self.group_size), dim=-1)

    def _store(self, updated: dict[str, Tensor], wanted: Tensor | None) -> None:
        """Write new statistics, where `wanted` says so."""
        updated.setdefault("batches", self.batches + 1)
        for name, new in updated.items():
            buffer = getattr(self, name)
            buffer.copy_(new if wanted is None else torch.where(wanted, new, buffer))

    def _not_finite(self, values: Tensor) -> ObservationError:
        nan, infinite = int(values.isnan().sum()), int(values.isinf().sum())
        remedy = (
            "look at the data, and pass a mask as bools, or with -1e4 in place of minus infinity"
            if self.name.startswith("input.")
            else "lower the learning rate or look for the layer that overflows"
        )
        return ObservationError(
            f"{self.name} met {nan} NaN and {infinite} infinite of {values.numel()} values while observing; "
            f"its range is unchanged; {remedy}."
        )


class MinMaxObserver(Observer):
    """The smallest and the largest value ever seen."""

    def _updated(self, values, minimum, maximum):
        first = self.batches == 0
        return {
            "minimum": torch.where(first, minimum, torch.minimum(self.minimum, minimum)),
            "maximum": torch.where(first, maximum, torch.maximum(self.maximum, maximum)),
        }


class MovingAverageObserver(Observer):
    """The average over batches of their smallest and largest value."""

    def _updated(self, values, minimum, maximum):
        if self.forward_so_far is not None:
            return self._updated_within_forward(minimum, maximum)
        share = self._share_of_new()
        return {
            "minimum": torch.lerp(self.minimum, minimum, share),
            "maximum": torch.lerp(self.maximum, maximum, share),
        }

    def _updated_within_forward(self, minimum: Tensor, maximum: Tensor) -> dict[str, Tensor]:
        """The statistics before this forward, and the extremes of all that was observed in it as one batch."""
        seen = self.forward_so_far
        if not seen:
            seen |= {"before_minimum": self.minimum.clone(), "before_maximum": self.maximum.clone()}
            seen |= {"batches": self.batches + 1, "share": self._share_of_new()}
        seen["minimum"] = torch.minimum(seen.get("minimum", minimum), minimum)
        seen["maximum"] = torch.maximum(seen.get("maximum", maximum), maximum)
        return {
            "minimum": torch.lerp(seen["before_minimum"], seen["minimum"], seen["share"]),
            "maximum": torch.lerp(seen["before_maximum"], seen["maximum"], seen["share"]),
            "batches": seen["batches"],
        }


class _HistogramBase(Observer):
    """A histogram of fixed size over -2^exponent..2^exponent, averaged over batches.

    counts: (..., BINS), the average number of values of a batch per bin, in ascending order of values; the two bins in
    the middle hold everything below 2^(exponent - OCTAVES). When a value falls outside, the range doubles as often as
    needed: bins move down by whole octaves, and nothing is split or interpolated.
    """

    #: most values of a batch that are counted, for each scale
    sample_size = RANGE_SAMPLE

    def __init__(self, name, shape=(), axis=None, group_size=None, momentum=MOMENTUM):
        super().__init__(name, shape, axis, group_size, momentum)
        self.register_buffer("counts", torch.zeros(*shape, BINS))
        self.register_buffer("exponent", torch.zeros(shape, dtype=torch.int32))

    def _updated(self, values, minimum, maximum):
        first = self.batches == 0
        # frexp: largest = mantissa * 2^exponent with mantissa < 1, so all values lie inside -2^exponent..2^exponent;
        # bounded so that 2^exponent is finite
        _, exponent = torch.frexp(torch.maximum(-minimum, maximum))
        exponent = exponent.clamp(-90, 127)
        exponent = exponent if self.momentum == 1.0 else torch.where(first, exponent, exponent.maximum(self.exponent))
        share = self._share_of_new()
        every = rows(values, self.axis, self.group_size)
        taken = sample(every, self.sample_size)
        new = self._count(taken, exponent)
        if taken.shape[-1] < every.shape[-1]:  # a sample misses the extremes, which cost most where they are clipped
            extremes = self._count(torch.stack([minimum, maximum], -1), exponent)
            new = new + extremes * (taken.shape[-1] / every.shape[-1])
        return {
            "minimum": torch.where(first | (share == 1.0), minimum, torch.minimum(self.minimum, minimum)),
            "maximum": torch.where(first | (share == 1.0), maximum, torch.maximum(self.maximum, maximum)),
            "counts": torch.lerp(self.widened(exponent), new, share),
            "exponent": exponent,
        }

    def _count(self, values: Tensor, exponent: Tensor) -> Tensor:
        """Histogram of `values` (..., n) over -2^exponent..2^exponent."""
        # The bits of a float32 behind its sign are its octave and then its place inside, so that those that are left
        # after a shift count the bins of all octaves in a row; 126 is the exponent that `frexp` calls 0.
        place = values.abs().view(torch.int32) >> (23 - PART_BITS)
        innermost = (exponent.unsqueeze(-1) + (126 + 1 - OCTAVES)) * PARTS
        level = (place - innermost).clamp(0, BINS // 2 - 1)  # also of NaN, which is left out only afterwards
        bins = torch.where(values < 0, BINS // 2 - 1 - level, BINS // 2 + level).long()
        return torch.zeros_like(self.counts).scatter_add_(-1, bins, torch.ones_like(values))

    def widened(self, exponent: Tensor) -> Tensor:
        """The counts on the wider range: every doubling takes bins an octave further down."""
        doublings = (exponent - self.exponent).clamp(0, OCTAVES).unsqueeze(-1).long()
        negative, level = _levels(self.counts.device)
        level = (level - doublings * PARTS).clamp(min=0)
        moved = torch.where(negative, BINS // 2 - 1 - level, BINS // 2 + level)
        return torch.zeros_like(self.counts).scatter_add_(-1, moved.expand_as(self.counts), self.counts)

    def centres(self) -> Tensor:
        """The middle of each bin, (..., BINS); that of the two innermost is 0."""
        negative, level = _levels(self.counts.device)
        middle = (level % PARTS + 0.5) / (2 * PARTS) + 0.5
        value = torch.where(level > 0, torch.ldexp(middle, level // PARTS - OCTAVES + 1), 0.0)
        return torch.where(negative, -value, value) * self._reach()

    def widths(self) -> Tensor:
        """How wide each bin is, (..., BINS)."""
        _, level = _levels(self.counts.device)
        return torch.ldexp(
            torch.full_like(level, 1 / (2 * PARTS), dtype=torch.float32), level // PARTS - OCTAVES + 1
        ) * (self._reach())

    def _reach(self) -> Tensor:
        """2^exponent, to broadcast against bins."""
        return torch.ldexp(torch.ones_like(self.minimum), self.exponent).unsqueeze(-1)


def _levels(device: torch.device) -> tuple[Tensor, Tensor]:
    """Whether each bin is on the negative side, and its place counted from 0 outwards, (BINS,)."""
    bins = torch.arange(BINS, device=device) - BINS // 2
    return bins < 0, torch.where(bins < 0, -bins - 1, bins)


class PercentileObserver(_HistogramBase):
    """The range that holds all but a share of the values on either side. percentile: 50..100, of each side."""

    def __init__(self, name, shape=(), axis=None, group_size=None, momentum=MOMENTUM, percentile=PERCENTILE):
        super().__init__(name, shape, axis, group_size, momentum)
        self.percentile = percentile

    def qparams(self, spec):
        total = self.counts.sum(-1, keepdim=True)
        below = self.counts.cumsum(-1)
        edges = self.centres()
        tail = (1.0 - self.percentile / 100) * total
        low = edges.gather(-1, (below <= tail).sum(-1, keepdim=True).clamp(max=BINS - 1)).squeeze(-1)
        high = edges.gather(-1, (below < total - tail).sum(-1, keepdim=True).clamp(max=BINS - 1)).squeeze(-1)
        return choose_qparams(low.maximum(self.minimum), high.minimum(self.maximum), spec)


class MSEObserver(_HistogramBase):
    """The range of least squared error, both ends shrunk by one ratio."""

    def qparams(self, spec):
        if _is_finer_than_bins(spec):
            return choose_qparams(self.minimum, self.maximum, spec)
        return search_range(self.centres(), self.counts, self.minimum, self.maximum, spec, self.widths())


class HistogramObserver(_HistogramBase):
    """The range of least squared error, each end shrunk on its own: first the upper, then the lower one.

    Better than `MSEObserver` where one tail is longer than the other; the same on a symmetric grid.
    """

    def qparams(self, spec):
        if _is_finer_than_bins(spec):
            return choose_qparams(self.minimum, self.maximum, spec)
        if spec.symmetric:
            return search_range(self.centres(), self.counts, self.minimum, self.maximum, spec, self.widths())
        centres, widths = self.centres(), self.widths()
        low, high = self.minimum, self.maximum
        high = _best_end(
            [high * ratio for ratio in END_RATIOS],
            lambda end: squared_error(centres, self.counts, low, end, spec, widths),
        )
        low = _best_end(
            [low * ratio for ratio in END_RATIOS],
            lambda end: squared_error(centres, self.counts, end, high, spec, widths),
        )
        return choose_qparams(low, high, spec)


def _is_finer_than_bins(spec: QuantSpec | Grid) -> bool:
    """Whether a grid has so many steps that a histogram does not show what clipping saves; 16 bits need not clip.

    The width of compiled code is a tensor, and is not asked.
    """
    return isinstance(spec.quant_max, int) and spec.quant_max - spec.quant_min >= BINS


def _best_end(candidates: list[Tensor], error_of) -> Tensor:
    """The candidate of least error, row by row; the first of equals."""
    best, least = candidates[0], error_of(candidates[0])
    for candidate in candidates[1:]:
        error = error_of(candidate)
        best, least = torch.where(error < least, candidate, best), torch.minimum(error, least)
    return best


OBSERVERS = {
    "minmax": MinMaxObserver,
    "moving_average": MovingAverageObserver,
    "percentile": PercentileObserver,
    "mse": MSEObserver,
    "histogram": HistogramObserver,
}
