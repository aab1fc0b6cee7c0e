"""Pictures of the finished network: SQNR of every layer, and how its weights use their grid."""

import math
from collections.abc import Mapping, Sequence

from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from qat.report.figures import style
from qat.report.formats import abbreviate
from qat.report.records import Layer
from qat.report.weights import Histogram, LayerWeights, histogram

_COLUMNS = 4
_LABELLED_CODES = 16  # a grid of up to this many codes has room for gaps between its bars


def sqnr_per_layer(layers: Sequence[Layer]) -> bytes | None:
    """One bar each for weights and output of every layer, in the order of the network; None where none was measured."""
    measured = [layer for layer in layers if layer.sqnr_db is not None or layer.activation_sqnr_db is not None]
    if not measured:
        return None
    names = [abbreviate(layer.name, 36) for layer in measured]
    with style.settings():
        made = style.figure(0.95 + 0.34 * max(2, len(measured)))
        axes = made.subplots()
        for operand, color, shift in (("weights", style.INTEGER, -0.19), ("activations", style.ACTIVATION, 0.19)):
            for row, layer in enumerate(measured):
                value = layer.sqnr_db if operand == "weights" else layer.activation_sqnr_db
                bits = layer.weight_bits if operand == "weights" else layer.activation_bits
                if value is None:
                    continue
                axes.barh(row + shift, value, height=0.34, color=color)
                width = f"   {bits} bit" if bits else ""
                axes.annotate(
                    f"{value:.1f}{width}",
                    (max(value, 0), row + shift),
                    (4, 0),
                    textcoords="offset points",
                    va="center",
                    size=7,
                    color=style.MUTED,
                )
        axes.set_yticks(range(len(names)), names, color=style.INK)
        axes.set_ylim(len(names) - 0.45, -0.55)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
        axes.margins(x=0.12)
        axes.set_xlabel("SQNR, dB (6 dB are one bit)")
        patches = [
            Patch(color=color, label=label)
            for label, color, values in (
                ("weights", style.INTEGER, [layer.sqnr_db for layer in measured]),
                ("activations", style.ACTIVATION, [layer.activation_sqnr_db for layer in measured]),
            )
            if any(value is not None for value in values)
        ]
        style.legend_below(made, patches)
        style.place(made, left=0.2 + 0.074 * max(map(len, names)), right=0.2, top=0.1, bottom=0.8)
        return style.png(made)


def weight_histograms(layers: Mapping[str, LayerWeights]) -> bytes | None:
    """Share of the weights on every code, one panel a layer; None for a program without weights.

    The first and last code, where clipped weights gather, are red.
    """
    if not layers:
        return None
    columns = min(_COLUMNS, len(layers))
    rows = math.ceil(len(layers) / columns)
    with style.settings():
        made = style.figure(1.55 * rows + 0.5)
        grid = made.subplots(rows, columns, squeeze=False).flatten()
        for axes, (name, weights) in zip(grid, layers.items(), strict=False):
            _draw_histogram(axes, name, weights, histogram(weights), title_length=104 // columns)
        for axes in grid[len(layers) :]:
            axes.remove()
        patches = [
            Patch(color=style.INTEGER, label="share of the weights, %, by integer code"),
            Patch(color=style.CLIPPED, label="outermost codes in use, where clipped weights gather"),
        ]
        style.legend_below(made, patches)
        style.place(made, left=0.4, right=0.1, top=0.45, bottom=0.65, wspace=0.2, hspace=0.85)
        return style.png(made)


def _draw_histogram(axes, name: str, weights: LayerWeights, bars: Histogram, title_length: int) -> None:
    codes = [bars.first_code + index * bars.codes_per_bar for index in range(len(bars.shares))]
    used = [index for index, share in enumerate(bars.shares) if share]
    gap = 0.12 * bars.codes_per_bar if len(codes) <= _LABELLED_CODES else 0
    outermost = (used[0], used[-1])
    colors = [style.CLIPPED if index in outermost else style.INTEGER for index in range(len(codes))]
    axes.bar(codes, [100 * s for s in bars.shares], width=bars.codes_per_bar - gap, color=colors, linewidth=0)
    axes.set_xlim(codes[0] - 0.7 * bars.codes_per_bar, codes[-1] + 0.7 * bars.codes_per_bar)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=3))
    axes.tick_params(labelsize=7, length=2, pad=2)
    axes.set_title(abbreviate(name, title_length), fontsize=8, pad=13)
    detail = f"{weights.bits} bit, {weights.codes.numel():,} weights"
    if bars.codes_per_bar > 1:
        detail += f", {bars.codes_per_bar} codes a bar"
    axes.annotate(
        detail, (0, 1), (0, 3), xycoords="axes fraction", textcoords="offset points", size=7, color=style.MUTED
    )
