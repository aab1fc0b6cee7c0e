"""The same figures for a terminal, as rich tables."""

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from qat.report import formats
from qat.report.advice import Advice
from qat.report.records import STAGES, RunRecord
from qat.report.sweep import SweepRow, pareto_front, short_names

_VERDICTS = {
    True: Text("integer, equal", style="green"),
    False: Text("NOT EQUAL", style="bold red"),
    None: Text("not verified", style="yellow"),
}
_ISLANDS = Text("float islands", style="yellow")
_RESULTS = {True: Text("equal", style="green"), False: _VERDICTS[False], None: Text("unverified", style="yellow")}


def run_table(run: RunRecord) -> Table:
    """The headline of one run: metric, size and latency of float, fake-quantized and integer network."""
    table = Table(title=Text(run.recipe or "run"), title_justify="left")
    table.add_column("network")
    table.add_column(run.metric or "metric", justify="right")
    table.add_column("size", justify="right")
    table.add_column("latency", justify="right")
    for stage in STAGES:
        table.add_row(
            run.stage_labels[stage],
            formats.metric_text(run.metric, run.metric_of(stage)),
            formats.bytes_text(run.size_bytes.get(stage)),
            formats.milliseconds_text(run.latency_ms.get(stage)),
        )
    table.add_row(
        "float / integer",
        "",
        formats.ratio_text(run.size_ratio),
        formats.ratio_text(run.latency_ratio),
        style="dim",
    )
    return table


def certificate_line(run: RunRecord) -> Text:
    """The verdict, with the counts it rests on."""
    ops = "operations on floats: " + ("not checked" if run.float_ops is None else str(len(run.float_ops)))
    ops += f" in float islands ({', '.join(run.islands)})" if run.equal_but_islands else ""
    counts = [f"{name}: {m.differing:,} of {m.total:,} codes differ" for name, m in run.mismatches.items()]
    verdict = _ISLANDS if run.equal_but_islands else _VERDICTS[run.certified]
    return Text.assemble(verdict, "  ", "; ".join([ops, *counts]))


def advice_table(advice: Sequence[Advice]) -> Table:
    """The layers that lose most, each with its next remedy."""
    table = Table(title="layers that lose most", title_justify="left")
    for heading in ("layer", "what loses"):
        table.add_column(heading)
    table.add_column("SQNR, dB", justify="right")
    for heading in ("next remedy", "cost"):
        table.add_column(heading)
    for entry in advice:
        loses = f"{entry.bits}-bit {entry.operand}" if entry.bits else entry.operand
        table.add_row(Text(entry.layer), loses, formats.decibel_text(entry.sqnr_db), entry.remedy, entry.cost)
    return table


def sweep_table(rows: Sequence[SweepRow]) -> Table:
    """One line a point; a star marks the Pareto front. Narrow enough for 80 columns: all columns are in the csv."""
    front = pareto_front(rows)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("point", overflow="fold")
    for heading in ("bits", "float", "integer", "size", "smaller", "faster"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("result", no_wrap=True)
    for row, label in zip(rows, short_names([row.name for row in rows]), strict=True):
        if row.record is None:
            table.add_row(Text(label), *[formats.ABSENT] * 6, Text("failed", style="red"))
            continue
        record = row.record
        mean = record.bits_per_weight
        table.add_row(
            Text(f"{label} *" if row in front else label),
            formats.ABSENT if mean is None else f"{mean:.3g}",
            formats.metric_text(record.metric, record.metric_of("float") if record.has_float_baseline else None),
            formats.metric_text(record.metric, record.metric_of("integer")),
            formats.bytes_text(row.size),
            formats.ratio_text(record.size_ratio),
            formats.ratio_text(record.latency_ratio),
            _ISLANDS if record.equal_but_islands else _RESULTS[record.certified],
        )
    return table
