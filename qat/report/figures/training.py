"""Pictures over time: training curves, widths and phases, SQNR of every layer."""

import math
from collections.abc import Sequence

import numpy
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from qat.report.curves import (
    FLOAT_BITS,
    learning_rates,
    metric_curves,
    phase_spans,
    sqnr_rows,
    widths_over_time,
)
from qat.report.figures import style
from qat.report.formats import abbreviate, is_share
from qat.report.records import EpochRecord, RunRecord

_SPLIT_COLORS = {"train": style.FLOAT, "validation": style.INTEGER}
_COLUMNS = 3


def training_curves(history: Sequence[EpochRecord]) -> bytes | None:
    """Every metric of train and validation by epoch, and the learning rate; None where nothing was logged."""
    panels = [(metric, curves) for metric, curves in metric_curves(history).items()]
    rates = learning_rates(history)
    if rates:
        panels.append(("learning rate", {"rate": rates}))
    if not panels:
        return None
    spans = phase_spans(history)
    columns = min(_COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    with style.settings():
        made = style.figure(2.55 * rows + 0.45)
        grid = made.subplots(rows, columns, squeeze=False).flatten()
        for axes, (metric, curves) in zip(grid, panels, strict=False):
            _draw_curves(axes, metric, curves, spans)
        for axes in grid[len(panels) :]:
            axes.remove()
        splits = dict.fromkeys(split for _, curves in panels for split in curves if split in _SPLIT_COLORS)
        lines = [Line2D([], [], color=_SPLIT_COLORS[split], linewidth=2, label=split) for split in splits]
        style.legend_below(made, lines + style.phase_patches(spans))
        style.place(made, left=0.55, right=0.15, top=0.3, bottom=0.8, wspace=0.24, hspace=0.5)
        return style.png(made)


def widths(history: Sequence[EpochRecord], run: RunRecord) -> bytes | None:
    """Bits of weights and activations by epoch, over the phases; None without a history."""
    if not history:
        return None
    over_time = widths_over_time(history, run)
    levels = sorted({bits for _, *pair in over_time for bits in pair if bits is not None})
    position = {bits: index for index, bits in enumerate(levels)}
    spans = phase_spans(history)
    with style.settings():
        made = style.figure(1.25 + 0.36 * max(3, len(levels)))
        axes = made.subplots()
        style.draw_phases(axes, spans)
        # The two lines lie a little apart, so that neither hides the other where they agree.
        for column, label, color, shift in (
            (1, "weights", style.INTEGER, 0.07),
            (2, "activations", style.ACTIVATION, -0.07),
        ):
            edges = [over_time[0][0] - 0.5] + [entry[0] + 0.5 for entry in over_time]
            heights = [math.nan if entry[column] is None else position[entry[column]] + shift for entry in over_time]
            axes.stairs(heights, edges, baseline=None, color=color, linewidth=2.4, label=label)
        axes.set_yticks(range(len(levels)), ["float" if bits == FLOAT_BITS else f"{bits} bit" for bits in levels])
        axes.set_ylim(-0.5, max(len(levels), 1) - 0.5)
        axes.grid(axis="y")
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        handles, _ = axes.get_legend_handles_labels()
        style.legend_below(made, handles + style.phase_patches(spans))
        style.place(made, left=0.7, right=0.15, top=0.15, bottom=0.85)
        return style.png(made)


def sqnr_over_time(history: Sequence[EpochRecord], run: RunRecord) -> bytes | None:
    """SQNR of every quantizer by epoch, as a map; None where it was not measured."""
    rows = sqnr_rows(history, run)
    if not rows:
        return None
    values = numpy.array([[math.nan if value is None else value for value in row] for row in rows.values()])
    names = [abbreviate(name, 36) for name in rows]
    with style.settings():
        made = style.figure(0.95 + 0.22 * max(4, len(names)))
        axes = made.subplots()
        epochs = [record.epoch for record in history]
        edges = numpy.array([epochs[0] - 0.5, *(epoch + 0.5 for epoch in epochs)])
        image = axes.pcolormesh(edges, numpy.arange(len(names) + 1) - 0.5, values, cmap="viridis", shading="flat")
        axes.set_facecolor(style.PHASES["float"])
        axes.set_yticks(range(len(names)), names, color=style.INK)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.hlines(numpy.arange(1, len(names)) - 0.5, edges[0], edges[-1], color="white", linewidth=1)
        axes.tick_params(axis="y", length=0)
        axes.spines[:].set_visible(False)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        style.place(made, left=_label_margin(names), right=1.1, top=0.15, bottom=0.6)
        box = axes.get_position()
        bar_height = min(box.height, 2.0 / made.get_size_inches()[1])
        beside = made.add_axes([box.x1 + 0.02, box.y1 - bar_height, 0.015, bar_height])
        made.colorbar(image, cax=beside, label="SQNR, dB").outline.set_visible(False)
        return style.png(made)


def _draw_curves(axes, metric: str, curves, spans) -> None:
    style.draw_phases(axes, spans)
    factor = 100 if is_share(metric) and all(abs(v) <= 1 for curve in curves.values() for _, v in curve) else 1
    for split, curve in curves.items():
        epochs = [epoch for epoch, _ in curve]
        marker = "o" if len(curve) <= 12 else None
        color = _SPLIT_COLORS.get(split, style.INK)
        axes.plot(
            epochs, [factor * value for _, value in curve], color=color, linewidth=1.8, marker=marker, markersize=3.2
        )
    if metric == "learning rate" and all(value > 0 for curve in curves.values() for _, value in curve):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
    axes.set_title(f"{metric}, %" if factor == 100 else metric.replace("_", " "))
    axes.grid(axis="y")
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))


def _label_margin(names: Sequence[str]) -> float:
    """Inches that the longest name takes, at 9 points of a font about 0.6 as wide as high."""
    return 0.2 + 0.074 * max(map(len, names))
