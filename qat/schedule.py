"""When what happens in a run: a pure function from progress to the state of quantization.

A point is an epoch (int), a share of the run (float in 0..1) or a number of optimizer steps ("500 steps"). Everything
is evaluated anew at every batch, so a run resumed anywhere is in the state of one that never stopped.
"""

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from qat.errors import ConfigurationError
from qat.spec import check_bits

Point = int | float | str

#: Phases in the order in which a run goes through them.
PHASES = ("float", "observe", "quantize", "frozen", "final")


@dataclass(frozen=True)
class Progress:
    """Where a run stands. epoch, step: completed so far; the totals are None where the run has no known end.

    share_of_epoch: completed part of the current epoch in 0..1. batches_per_epoch, batches_per_step: tell where the
        last batch lies, and change no state; None where unknown.

    Raises `ConfigurationError` for a total below 0: what Lightning writes as -1 is None here.
    """

    epoch: int = 0
    step: int = 0
    total_epochs: int | None = None
    total_steps: int | None = None
    share_of_epoch: float = 0.0
    batches_per_epoch: int | None = None
    batches_per_step: int | None = None

    def __post_init__(self):
        for name in ("total_epochs", "total_steps"):
            total = getattr(self, name)
            if total is not None and total < 0:
                raise ConfigurationError(f"progress.{name} is {total}; a run without a known end has None there.")

    @property
    def share(self) -> float | None:
        """Completed share of the run in 0..1, the larger one where epochs and steps both end it. None if unknown."""
        shares = []
        if self.total_steps:
            shares.append(self.step / self.total_steps)
        if self.total_epochs:
            shares.append((self.epoch + self.share_of_epoch) / self.total_epochs)
        return max(shares, default=None)

    @property
    def steps_per_epoch(self) -> int | None:
        """Optimizer steps of an epoch, None if unknown."""
        known = self.batches_per_epoch and self.batches_per_step
        return -(-self.batches_per_epoch // self.batches_per_step) if known else None

    @property
    def steps_of_run(self) -> int | None:
        """Optimizer steps of the whole run, None if unknown."""
        return _least(self.total_steps, _product(self.total_epochs, self.steps_per_epoch))

    @property
    def batches_of_run(self) -> int | None:
        """Batches of the whole run, None if unknown."""
        by_steps = _product(self.total_steps, self.batches_per_step)
        return _least(by_steps, _product(self.total_epochs, self.batches_per_epoch))

    def of_last_batch(self) -> "Progress":
        """Where the run stands when its last batch begins, as far as its length is known."""
        steps = self.steps_of_run
        epochs = self.total_epochs
        if steps and self.steps_per_epoch:
            epochs = min(math.ceil(steps / self.steps_per_epoch), epochs or steps)
        batches = self.batches_per_epoch or 1_000_000  # unknown: more than matter, few enough not to round to the end
        return dataclasses.replace(
            self,
            epoch=epochs - 1 if epochs else 0,
            step=steps - 1 if steps else 0,
            share_of_epoch=1.0 - 1.0 / batches,
        )

    def share_at(self, point: Point) -> float | None:
        """The share of the run at which `point` lies, None where the run's length in its unit is unknown."""
        if isinstance(point, float):
            return point
        total = self.total_epochs if isinstance(point, int) else self.steps_of_run
        return _value(point) / total if total else None


@dataclass(frozen=True)
class QuantState:
    """What quantization does during one batch.

    observe: ranges of activations are observed; those of weights follow the weights. fake_quantize: values are rounded
    to their grid. freeze_batch_norm: running statistics are fixed and folded biases are fake-quantized.
    freeze_scales: learned step sizes are fixed. weight_bits, activation_bits: smallest width allowed now; None leaves
    each layer's own. final: only weights will change any more, so a model saved now is one that can be exported.
    """

    observe: bool = True
    fake_quantize: bool = True
    freeze_batch_norm: bool = False
    freeze_scales: bool = False
    weight_bits: int | None = None
    activation_bits: int | None = None
    final: bool = False

    @property
    def phase(self) -> str:
        """One word for a progress bar, of `PHASES`."""
        if self.final:
            return "final"
        if not self.fake_quantize:
            return "observe" if self.observe else "float"
        return "quantize" if self.observe else "frozen"


@dataclass(frozen=True)
class Schedule:
    """Points at which the phases of quantization-aware training begin.

    start: fake quantization begins; float before it. observe: observers begin (default: with `start`).
    freeze_observers: observed ranges of activations stay as they are. freeze_batch_norm: batch norm stays as it is.
    freeze_scales: learned step sizes stay as they are (default: with `freeze_batch_norm`).
    weight_bits, activation_bits: ladders of widths, `{0: 8, 4: 6, 8: 4}` or `[[0, 8], [4, 6], [8, 4]]`. The width in
        force is the larger of the ladder's and the layer's own, so one ladder serves several final widths.
    """

    start: Point = 0.1
    observe: Point | None = None
    freeze_observers: Point = 0.5
    freeze_batch_norm: Point = 0.6
    freeze_scales: Point | None = None
    weight_bits: Mapping[Point, int] | Iterable[tuple[Point, int]] | None = None
    activation_bits: Mapping[Point, int] | Iterable[tuple[Point, int]] | None = None

    def __post_init__(self):
        for name in ("start", "observe", "freeze_observers", "freeze_batch_norm", "freeze_scales"):
            value = getattr(self, name)
            if value is not None or name not in ("observe", "freeze_scales"):
                _check_point(value, f"schedule.{name}")
        for name in ("weight_bits", "activation_bits"):
            object.__setattr__(self, name, _ladder(getattr(self, name), f"schedule.{name}"))
        for earlier, later, strict in self._required_order():
            _refuse_disorder(*earlier, *later, strict)

    def state_at(self, progress: Progress) -> QuantState:
        """The state in force at `progress`. Raises `ConfigurationError` for a share of a run of unknown length."""
        freeze_scales_from = self.freeze_batch_norm if self.freeze_scales is None else self.freeze_scales
        observers_frozen = _reached(self.freeze_observers, progress, "freeze_observers")
        batch_norm_frozen = _reached(self.freeze_batch_norm, progress, "freeze_batch_norm")
        scales_frozen = _reached(freeze_scales_from, progress, "freeze_scales")
        started = _reached(self.start, progress, "start")
        weight_bits, last_weight_rung = _rung(self.weight_bits, progress, "weight_bits")
        activation_bits, last_activation_rung = _rung(self.activation_bits, progress, "activation_bits")
        frozen = observers_frozen and batch_norm_frozen and scales_frozen
        return QuantState(
            observe=_reached(self._observe_from, progress, "observe") and not observers_frozen,
            fake_quantize=started,
            freeze_batch_norm=batch_norm_frozen,
            freeze_scales=scales_frozen,
            weight_bits=weight_bits,
            activation_bits=activation_bits,
            final=started and frozen and last_weight_rung and last_activation_rung,
        )

    def check_reaches(self, weight_bits: int, activation_bits: int) -> None:
        """Refuse a ladder that ends above the width the config asks for, which would then never be trained."""
        for ladder, bits, what in (
            (self.weight_bits, weight_bits, "weight_bits"),
            (self.activation_bits, activation_bits, "activation_bits"),
        ):
            if ladder and ladder[-1][1] > bits:
                raise ConfigurationError(
                    f"schedule.{what} ends at {ladder[-1][1]} bits, above the {bits} bits of the config; "
                    f"add a last rung of {bits} bits or raise the config's width."
                )

    def check_against(self, progress: Progress) -> list[str]:
        """What is odd about this schedule in a run of the length that `progress` tells: points it never reaches.

        Returns sentences for the preflight, empty where all is well. Raises as `state_at` does, and for points of
        different units that turn out to be in the wrong order in a run of this length.
        """
        self.state_at(progress)
        for earlier, later, strict in self._required_order():
            shares = progress.share_at(earlier[1]), progress.share_at(later[1])
            if None not in shares and _in_disorder(*shares, strict):
                raise ConfigurationError(_disorder(*earlier, *later, f" in a run that ends at {_length(progress)}"))
        last = progress.of_last_batch()
        sentences = [
            f"schedule.{name} is {point!r}, but the run ends at {_length(progress)}: it is never reached, and nothing "
            "will be exported; use a share of the run, such as 0.6, and enough batches."
            for name, point in self._points()
            if progress.share_at(point) is not None and not _reached(point, last, name)
        ]
        if not sentences and not self._observes_any_batch(progress):
            sentences.append(
                f"no batch of a run that ends at {_length(progress)} lies between schedule.observe at "
                f"{self._observe_from!r} and schedule.freeze_observers at {self.freeze_observers!r}, so no range is "
                "observed and nothing will be exported; train on more batches, or move the two apart."
            )
        return sentences

    def _observes_any_batch(self, progress: Progress) -> bool:
        """Whether a batch begins between the observers' start and their end, True where that cannot be told."""
        begin, end = progress.share_at(self._observe_from), progress.share_at(self.freeze_observers)
        batches = progress.batches_of_run
        return None in (begin, end, batches) or math.ceil(begin * batches) < end * batches

    @property
    def _observe_from(self) -> Point:
        return self.start if self.observe is None else self.observe

    def _points(self) -> list[tuple[str, Point]]:
        named = [
            (name, getattr(self, name))
            for name in ("start", "observe", "freeze_observers", "freeze_batch_norm", "freeze_scales")
        ]
        named += [("weight_bits", point) for point, _ in self.weight_bits or ()]
        named += [("activation_bits", point) for point, _ in self.activation_bits or ()]
        return [(name, point) for name, point in named if point is not None]

    def _required_order(self):
        """Pairs of (name, point) that must not stand the other way round, and whether they must not coincide either."""
        start = ("start", self.start)
        observe = ("observe", self.observe) if self.observe is not None else start
        yield observe, start, False
        yield observe, ("freeze_observers", self.freeze_observers), True  # else nothing is ever observed
        yield start, ("freeze_batch_norm", self.freeze_batch_norm), False
        if self.freeze_scales is not None:
            yield start, ("freeze_scales", self.freeze_scales), False


def _check_point(point: Point, what: str) -> None:
    if isinstance(point, bool) or not isinstance(point, int | float | str):
        raise ConfigurationError(f"{what} is {point!r}; a point is an epoch (3), a share (0.5) or steps ('500 steps').")
    if isinstance(point, str):
        _steps(point, what)
    elif isinstance(point, float) and not 0.0 <= point <= 1.0:
        raise ConfigurationError(
            f"{what} is {point}; a share of the run lies in 0..1, an epoch is written without a dot."
        )
    elif isinstance(point, int) and point < 0:
        raise ConfigurationError(f"{what} is epoch {point}; epochs count from 0.")


def _steps(point: str, what: str = "a point") -> int:
    match = re.fullmatch(r"\s*(\d+)\s*steps?\s*", point)
    if not match:
        raise ConfigurationError(f"{what} is {point!r}; steps are written '500 steps'.")
    return int(match.group(1))


def _reached(point: Point, progress: Progress, name: str) -> bool:
    if isinstance(point, str):
        return progress.step >= _steps(point)
    if isinstance(point, float):
        if progress.share is None:
            raise ConfigurationError(
                f"schedule.{name} is the share {point} of a run whose length is unknown; set max_epochs or max_steps "
                "on the trainer, or give an epoch or '500 steps'."
            )
        return progress.share >= point
    return progress.epoch >= point


def _ladder(entries, what: str) -> tuple[tuple[Point, int], ...] | None:
    if entries is None:
        return None
    pairs = entries.items() if isinstance(entries, Mapping) else entries
    try:
        ladder = tuple((point, bits) for point, bits in pairs)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(
            f"{what} is {entries!r}; write a list of [point, bits] pairs, e.g. [[0, 8], [5, 4]]."
        ) from error
    if not ladder:
        raise ConfigurationError(f"{what} is empty; leave it out, or write e.g. [[0, 8], [5, 4]].")
    for point, bits in ladder:
        _check_point(point, f"a point of {what}")
        check_bits(bits, f"the width of {what} at {point!r}")
    first = ladder[0]
    if _value(first[0]) != 0:
        written = "{" + ", ".join(f"{point!r}: {bits}" for point, bits in ladder) + "}"
        raise ConfigurationError(
            f"{what}={written} does not say how many bits epoch 0 uses; add an entry for 0, e.g. "
            f"{{0: 8, {', '.join(f'{point!r}: {bits}' for point, bits in ladder)}}}."
        )
    for (point, bits), (next_point, next_bits) in zip(ladder, ladder[1:], strict=False):
        _refuse_disorder(what, point, what, next_point, strict=True)
        if next_bits >= bits:
            raise ConfigurationError(
                f"{what} goes from {bits} bits at {point!r} to {next_bits} at {next_point!r}; a ladder only descends."
            )
    return ladder


def _rung(ladder, progress: Progress, name: str) -> tuple[int | None, bool]:
    """The width in force, and whether it is the ladder's last."""
    if ladder is None:
        return None, True
    reached = [bits for point, bits in ladder if _reached(point, progress, name)]
    return reached[-1], len(reached) == len(ladder)


def _value(point: Point) -> int | float:
    return _steps(point) if isinstance(point, str) else point


def _refuse_disorder(earlier_name: str, earlier: Point, later_name: str, later: Point, strict: bool) -> None:
    """Refuse `earlier` lying behind `later`, or with it where `strict`, where both are written in the same unit."""
    if type(earlier) is type(later) and _in_disorder(_value(earlier), _value(later), strict):
        raise ConfigurationError(_disorder(earlier_name, earlier, later_name, later))


def _in_disorder(earlier: int | float, later: int | float, strict: bool) -> bool:
    return earlier > later or (strict and earlier == later)


def _disorder(earlier_name: str, earlier: Point, later_name: str, later: Point, where: str = "") -> str:
    prefix = "" if earlier_name.startswith("schedule.") else "schedule."
    return (
        f"{prefix}{earlier_name} at {earlier!r} must come before {prefix}{later_name} at {later!r}{where}; "
        "move one of the two."
    )


def _product(one: int | None, other: int | None) -> int | None:
    """The product of two counts, None where one is unknown or 0."""
    return one * other if one and other else None


def _least(*counts: int | None) -> int | None:
    """The least of the counts that are known."""
    return min((count for count in counts if count), default=None)


def _length(progress: Progress) -> str:
    """The length of a run in words, as far as it is known."""
    parts = [f"epoch {progress.total_epochs}"] if progress.total_epochs else []
    if progress.steps_of_run:
        parts.append(f"step {progress.steps_of_run}")
    return ", ".join(parts)
