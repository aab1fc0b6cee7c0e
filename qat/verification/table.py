"""What verification found as one table: a line for every file, and for the networks beside them."""

import io

from rich import box
from rich.console import Console
from rich.table import Table

from qat.verification.report import FileReport, Mismatch, VerificationReport

_WIDTH = 100
_ABSENT = "–"


def printed(report: VerificationReport) -> str:
    """The table, and below it what is the same for all files."""
    console = Console(file=io.StringIO(), force_jupyter=False, width=_WIDTH, color_system=None)
    console.print(_table(report))
    for line in _notes(report):
        console.print(line, soft_wrap=True, markup=False, highlight=False)
    return console.file.getvalue()


def _table(report: VerificationReport) -> Table:
    names = list(dict.fromkeys(name for values in report.metrics.values() for name in values))
    title = f"verified on {report.samples} samples: {report.verdict}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("", no_wrap=True)
    for column in ("bytes", "differing codes", "float ops", *names, "ms", "float ms", "speed"):
        table.add_column(column, justify="right")
    for runtime, entry in report.files.items():
        values = [_number(entry.metrics.get(name)) for name in names]
        table.add_row(
            runtime, f"{entry.bytes:,}", _codes(entry.mismatch), str(len(entry.float_ops)), *values, *_latency(entry)
        )
    for stage, label in (("fake_quant", "fake-quantized"), ("float", "float")):
        found, measured = report.mismatches.get(stage), report.metrics.get(stage)
        if found is None and measured is None:
            continue
        values = [_number((measured or {}).get(name)) for name in names]
        size = f"{report.size_bytes['float']:,}" if stage == "float" else _ABSENT
        codes = _ABSENT if found is None else _codes(found)
        table.add_row(label, size, codes, _ABSENT, *values, *[_ABSENT] * 3)
    return table


def _codes(found: Mismatch) -> str:
    most = f", by at most {found.max_lsb}" if found.differing else ""
    return f"{found.differing:,} of {found.total:,}{most}"


def _number(value: float | None) -> str:
    return _ABSENT if value is None else f"{value:.4f}"


def _latency(entry: FileReport) -> list[str]:
    """Milliseconds of the file, of the float network in the same runtime, and how many times faster the file is."""
    integer, real = (entry.latency_ms.get(kind) for kind in ("integer", "float"))
    times = [_ABSENT if time is None else f"{time:.3f}" for time in (integer, real)]
    return [*times, f"{real / integer:.2f}×" if integer and real else _ABSENT]


def _notes(report: VerificationReport) -> list[str]:
    size = report.size_bytes.get("program")
    lines = [] if size is None else [f"weights and biases at their true width: {size:,} bytes"]
    for runtime, entry in report.files.items():
        if entry.float_ops:
            lines.append(f"{runtime} computes in floating point: {', '.join(entry.float_ops)}")
        if entry.islands:
            lines.append(f"{runtime} has float islands: {', '.join(entry.islands)}")
        if entry.island_codes is not None:
            lines.append(f"{runtime}: codes of the islands that differ, {_codes(entry.island_codes)}")
    if report.nonlinear_ms:
        times = ", ".join(f"{kind} {milliseconds:.3f} ms" for kind, milliseconds in report.nonlinear_ms.items())
        lines.append(f"softmax, norms and division: {times}")
    for runtime, entry in report.files.items():
        conditions = ", ".join(f"{name} {value}" for name, value in entry.conditions.items())
        lines.append(f"{runtime}: {conditions}")
    return lines
