"""Size and latency of the integer file beside float."""

from collections.abc import Callable

from qat.report.figures import style
from qat.report.formats import bytes_text, milliseconds_text
from qat.report.records import RunRecord


def size_and_latency(run: RunRecord) -> bytes | None:
    """Bars of the float and the integer network, as far as they were measured; None where nothing was."""
    panels: list[tuple[str, dict[str, float], Callable, float | None, str]] = []
    if run.size_bytes:
        panels.append(("size", dict(run.size_bytes), bytes_text, run.size_ratio, "smaller"))
    if run.latency_ms:
        panels.append(("latency", dict(run.latency_ms), milliseconds_text, run.latency_ratio, "faster"))
    panels = [panel for panel in panels if any(stage in panel[1] for stage in ("float", "integer"))]
    if not panels:
        return None
    with style.settings():
        made = style.figure(1.45)
        for axes, (title, values, text, ratio, comparative) in zip(
            made.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
        ):
            stages = [stage for stage in ("float", "integer") if stage in values]
            colors = [style.FLOAT if stage == "float" else style.INTEGER for stage in stages]
            axes.barh(stages, [values[stage] for stage in stages], color=colors, height=0.62)
            for row, stage in enumerate(stages):
                axes.annotate(
                    text(values[stage]), (values[stage], row), (5, 0), textcoords="offset points", va="center", size=9
                )
            axes.set_title(title if ratio is None else _compared(title, ratio, comparative))
            axes.invert_yaxis()
            axes.margins(x=0.22)
            axes.set_xticks([])
            axes.tick_params(axis="y", length=0, labelcolor=style.INK)
            axes.spines["bottom"].set_visible(False)
        style.place(made, left=0.7, right=0.1, top=0.35, bottom=0.1, wspace=0.2)
        return style.png(made)


def _compared(title: str, ratio: float, comparative: str) -> str:
    if ratio >= 1:
        return f"{title}: {ratio:.2f}× {comparative}"
    return f"{title}: {1 / ratio:.2f}× {'larger' if comparative == 'smaller' else 'slower'}"
