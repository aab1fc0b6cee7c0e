"""From a history of epochs to what is drawn over time: metric curves, phases, widths, SQNR per layer."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from qat.report.records import EpochRecord, RunRecord

SPLITS = {"train": "train", "training": "train", "val": "validation", "valid": "validation", "validation": "validation"}
_LEADING = ("loss", "accuracy", "acc", "map")  # drawn first, in this order

#: Stands for the 32 bits of a float on an axis of widths.
FLOAT_BITS = 32
FLOAT_PHASES = ("float", "observe")


@dataclass(frozen=True)
class Span:
    """Epochs first..last, inclusive, that share a phase."""

    phase: str
    first: int
    last: int


def metric_curves(history: Sequence[EpochRecord]) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """metric -> split ("train", "validation") -> (epoch, value) pairs.

    The split is a word of the logged name: `train/loss`, `val_loss` and `loss/val` all belong to `loss`. Of the
    twins that Lightning writes for a metric logged on both occasions the `_epoch` one counts. Names without a split,
    the learning rate of a monitor for example, are no training curves.
    """
    curves: dict[str, dict[str, dict[int, float]]] = {}
    for record in history:
        for name, value in sorted(record.metrics.items(), key=lambda item: item[0].endswith("_epoch")):
            split, metric = _split_and_metric(name)
            if split is not None and not name.endswith("_step"):
                curves.setdefault(metric, {}).setdefault(split, {})[record.epoch] = value
    order = sorted(curves, key=lambda metric: (_LEADING.index(metric) if metric in _LEADING else len(_LEADING), metric))
    return {
        metric: {
            split: list(curves[metric][split].items()) for split in ("train", "validation") if split in curves[metric]
        }
        for metric in order
    }


def learning_rates(history: Sequence[EpochRecord]) -> list[tuple[int, float]]:
    """(epoch, learning rate) pairs."""
    return [(record.epoch, record.learning_rate) for record in history if record.learning_rate is not None]


def phase_spans(history: Sequence[EpochRecord]) -> list[Span]:
    """Runs of consecutive epochs in one phase."""
    groups = ((phase, [record.epoch for record in group]) for phase, group in groupby(history, lambda r: r.phase))
    return [Span(phase, epochs[0], epochs[-1]) for phase, epochs in groups]


def widths_over_time(history: Sequence[EpochRecord], run: RunRecord) -> list[tuple[int, int | None, int | None]]:
    """(epoch, weight bits, activation bits) with `FLOAT_BITS` before fake quantization begins.

    Where the schedule sets no width each layer has its own; the narrowest one stands for them, None if unknown.
    """
    own_weight = min((layer.weight_bits for layer in run.layers if layer.weight_bits), default=None)
    own_activation = min((layer.activation_bits for layer in run.layers if layer.activation_bits), default=None)
    widths = []
    for record in history:
        if record.phase in FLOAT_PHASES:
            widths.append((record.epoch, FLOAT_BITS, FLOAT_BITS))
        else:
            widths.append((record.epoch, record.weight_bits or own_weight, record.activation_bits or own_activation))
    return widths


def sqnr_rows(history: Sequence[EpochRecord], run: RunRecord) -> dict[str, list[float | None]]:
    """quantizer -> SQNR in dB at every epoch of the history, None where it was not measured.

    In the order of the network's layers, the weight of each before its output; what belongs to no layer, the inputs,
    comes first.
    """
    layers = [layer.name for layer in run.layers]

    def place(name: str) -> tuple[int, bool, str]:
        layer, _, operand = name.rpartition(".")
        return (layers.index(layer) if layer in layers else -1, operand == "output", name)

    names = sorted({name for record in history for name in record.sqnr_db}, key=place)
    return {name: [record.sqnr_db.get(name) for record in history] for name in names}


def _split_and_metric(name: str) -> tuple[str | None, str]:
    words = name.removesuffix("_epoch").replace("/", "_").replace(".", "_").split("_")
    for position, word in enumerate(words):
        if word in SPLITS:
            return SPLITS[word], "_".join(words[:position] + words[position + 1 :]) or name
    return None, name
