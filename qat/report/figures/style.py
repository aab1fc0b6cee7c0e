"""How every picture looks, and how it becomes a PNG without a display, a time or a path in it."""

import io
import warnings
from collections.abc import Iterable, Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from qat.report.curves import Span

WIDTH = 9.6  # inches; 960 CSS pixels on the page
DPI = 160  # sharp on dense screens, small enough to inline

INK, MUTED, GRID = "#1f2937", "#6b7280", "#e5e7eb"
INTEGER, FLOAT, ACTIVATION, CLIPPED = "#2563eb", "#94a3b8", "#f59e0b", "#dc2626"
PHASES = {"float": "#eef2f6", "observe": "#fdf0d5", "quantize": "#dfeafe", "frozen": "#ebe3fb", "final": "#d9f2e3"}

_SETTINGS = {
    "font.family": "DejaVu Sans",  # ships with matplotlib, so that every machine draws the same
    "font.size": 9,
    "axes.edgecolor": "#9ca3af",
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.linewidth": 0.8,
    "grid.color": GRID,
    "text.color": INK,
    "text.parse_math": False,  # a $ in a name is a $
    "text.usetex": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}

_PROCESS_WIDE = ("backend", "backend_fallback", "interactive")  # how windows open, nothing that a file shows


def settings():
    """Context in which figures are made and drawn: our settings on matplotlib's defaults, not on the user's."""
    defaults = {name: value for name, value in matplotlib.rcParamsDefault.items() if name not in _PROCESS_WIDE}
    return matplotlib.rc_context({**defaults, **_SETTINGS})


def figure(height: float) -> Figure:
    """A page-wide figure of `height` inches that belongs to no window and to no global list."""
    made = Figure(figsize=(WIDTH, height), dpi=DPI)
    FigureCanvasAgg(made)
    return made


def place(made: Figure, left: float, right: float, top: float, bottom: float, **spacing: float) -> None:
    """Set the margins in inches, so that they stay the same however tall the figure is."""
    width, height = made.get_size_inches()
    made.subplots_adjust(
        left=left / width, right=1 - right / width, top=1 - top / height, bottom=bottom / height, **spacing
    )


def png(made: Figure) -> bytes:
    """The figure as PNG bytes without metadata."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # A layer may be named in a script the font lacks: it shows as boxes, which is no reason to lose the report.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        made.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def draw_phases(axes: Axes, spans: Sequence[Span]) -> None:
    """Colour the background of an axis of epochs by phase."""
    for span in spans:
        axes.axvspan(span.first - 0.5, span.last + 0.5, color=PHASES.get(span.phase, "#ffffff"), linewidth=0, zorder=0)
    if spans:
        axes.set_xlim(spans[0].first - 0.5, spans[-1].last + 0.5)


def phase_patches(spans: Sequence[Span]) -> list[Patch]:
    """Entries of a legend, one for each phase that occurs."""
    names = dict.fromkeys(span.phase for span in spans if span.phase in PHASES)
    return [Patch(facecolor=PHASES[name], edgecolor="#9ca3af", linewidth=0.5, label=name) for name in names]


def legend_below(made: Figure, handles: Iterable) -> None:
    """One legend line at the lower edge of the figure."""
    handles = list(handles)
    if handles:
        made.legend(handles=handles, loc="lower center", ncols=len(handles), borderaxespad=0.3, handlelength=1.6)
