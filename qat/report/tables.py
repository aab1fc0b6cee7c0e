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
_WRONG = Text("NOT THE PROGRAM", style="bold red")
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
        f"float / {run.file_label}",
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
    if not run.is_integer:
        verdict = Text(f"not integer ({run.way}), as the program", style="yellow") if run.as_exported else _WRONG
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


def comparison_table(rows: Sequence[SweepRow]) -> Table:
    """One line a run, of different ways to quantize: what each costs in accuracy, bytes and latency.

    float: the metric of the network trained in float. Narrow enough for 80 columns, as `sweep_table`.
    """
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("run", overflow="fold")
    table.add_column("way", no_wrap=True)
    metrics = list(dict.fromkeys(row.record.metric for row in rows if row.record and row.record.metric))
    metric = metrics[0] if len(metrics) == 1 else "metric"
    for heading in ("bits", metric, "float", "bytes", "ms", "float ops"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row, label in zip(rows, short_names([row.name for row in rows]), strict=True):
        record = row.record
        if record is None:
            table.add_row(Text(label), Text("failed", style="red"), *[formats.ABSENT] * 6)
            continue
        mean, milliseconds = record.bits_per_weight, record.latency_ms.get("integer")
        table.add_row(
            Text(label),
            _way(record),
            formats.ABSENT if mean is None else f"{mean:.3g}",
            formats.metric_text(record.metric, record.metric_of("integer")),
            formats.metric_text(record.metric, record.metric_of("float") if record.has_float_baseline else None),
            formats.ABSENT if row.size is None else f"{row.size:,.0f}",
            formats.ABSENT if milliseconds is None else f"{milliseconds:.3f}",
            formats.ABSENT if record.float_ops is None else str(len(record.float_ops)),
        )
    return table


def _way(record: RunRecord) -> Text:
    """How a run was quantized, and whether its file is what it should be."""
    if record.is_integer:
        word = "float islands" if record.equal_but_islands else "integer"
        return Text(word, style="green") if record.certified else Text(f"{word}, unverified", style="yellow")
    return Text(record.way, style="yellow") if record.as_exported else Text(f"{record.way}, wrong", style="red")
