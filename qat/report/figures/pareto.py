"""Accuracy against size: every point of a sweep, and the front of those worth having."""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy
from matplotlib.axes import Axes
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, MaxNLocator
from matplotlib.transforms import Bbox

from qat.report.figures import style
from qat.report.formats import bytes_text, is_share, metric_text, shorten
from qat.report.sweep import SweepRow, pareto_front, short_names

#: Where a label may stand beside its point, best first: (x, y in points, horizontal, vertical alignment).
_PLACES = (
    (7, -4, "left", "top"),
    (-7, 5, "right", "bottom"),
    (7, 5, "left", "bottom"),
    (-7, -4, "right", "top"),
    (0, 9, "center", "bottom"),
    (0, -9, "center", "top"),
    (7, -16, "left", "top"),
    (-7, 17, "right", "bottom"),
    (7, 17, "left", "bottom"),
    (-7, -16, "right", "top"),
    (0, 24, "center", "bottom"),
    (0, -24, "center", "top"),
    (30, -30, "left", "top"),
    (-30, 30, "right", "bottom"),
)


def accuracy_against_size(rows: Sequence[SweepRow]) -> bytes | None:
    """The plot; None where no point has both a size and a score.

    A label of a point off the front is left out where it would cover something; the front's are always there.
    """
    points = [row for row in rows if row.size is not None and row.score is not None]
    if not points:
        return None
    front = pareto_front(points)
    behind = [row for row in points if row not in front]
    metric = points[0].record.metric
    factor = 100 if is_share(metric) else 1
    labels = dict(zip((row.name for row in points), short_names([row.name for row in points]), strict=True))
    scores = [row.record.metric_of("float") for row in points if row.record.has_float_baseline]
    with style.settings():
        made = style.figure(5.4)
        axes = made.subplots()
        style.place(made, left=0.75, right=0.3, top=0.35, bottom=0.9)
        if scores:
            label = f"float, {metric_text(metric, max(scores))}"
            axes.axhline(factor * max(scores), color=style.FLOAT, linestyle="--", linewidth=1.2, label=label)
        axes.plot(
            [row.size for row in front],
            [factor * row.score for row in front],
            color=style.INTEGER,
            linewidth=1.5,
            marker="o",
            markersize=7,
            label="Pareto front",
        )
        axes.plot(
            [row.size for row in behind],
            [factor * row.score for row in behind],
            linestyle="",
            marker="o",
            markersize=6,
            markerfacecolor="white",
            markeredgecolor=style.MUTED,
            label="beaten by a smaller or better point",
        )
        axes.margins(x=0.12, y=0.18)
        axes.set_xlabel("integer file")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: bytes_text(value) if value >= 0 else ""))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=7, min_n_ticks=2))
        axes.set_ylabel(f"integer {metric}" + (", %" if factor == 100 else ""))
        axes.grid()
        handles, _ = axes.get_legend_handles_labels()
        style.legend_below(made, handles if behind else handles[:-1])
        axes.autoscale_view()
        taken = [_point_box(axes, row.size, factor * row.score) for row in points]
        taken += _boxes_along(axes, [(row.size, factor * row.score) for row in front])
        if scores:
            taken += _boxes_along(axes, [(x, factor * max(scores)) for x in axes.get_xlim()])
        for row in front:
            text = f"{shorten(labels[row.name], 40)}  {metric_text(metric, row.score)}"
            _label(axes, text, row.size, factor * row.score, taken, style.INK, always=True)
        for row in behind:
            _label(axes, shorten(labels[row.name], 40), row.size, factor * row.score, taken, style.MUTED, always=False)
        return style.png(made)


def _point_box(axes: Axes, x: float, y: float) -> Bbox:
    """The pixels a marker covers."""
    pixel_x, pixel_y = axes.transData.transform((x, y))
    reach = 5 * axes.figure.dpi / 72
    return Bbox.from_extents(pixel_x - reach, pixel_y - reach, pixel_x + reach, pixel_y + reach)


def _boxes_along(axes: Axes, line: Sequence[tuple[float, float]]) -> list[Bbox]:
    """Small boxes that together cover a line of straight pieces, given in data units."""
    boxes = []
    for start, end in pairwise(axes.transData.transform(line)):
        for part in numpy.linspace(0, 1, 2 + int(math.dist(start, end) // 4)):
            x, y = start + part * (end - start)
            boxes.append(Bbox.from_extents(x - 2, y - 2, x + 2, y + 2))
    return boxes


def _label(axes: Axes, text: str, x: float, y: float, taken: list[Bbox], color: str, always: bool) -> None:
    """Write `text` at the first place where it covers nothing in `taken`, and add it there."""
    for place in _PLACES:
        label = _annotate(axes, text, x, y, place, color)
        box = label.get_window_extent(axes.figure.canvas.get_renderer())
        inside = axes.figure.bbox.contains(*box.min) and axes.figure.bbox.contains(*box.max)
        if inside and not any(box.overlaps(other) for other in taken):
            taken.append(box)
            return
        label.remove()
    if always:
        _annotate(axes, text, x, y, _PLACES[0], color)


def _annotate(axes: Axes, text: str, x: float, y: float, place: tuple[int, int, str, str], color: str) -> Text:
    dx, dy, horizontal, vertical = place
    return axes.annotate(
        text, (x, y), (dx, dy), textcoords="offset points", ha=horizontal, va=vertical, size=8, color=color
    )
