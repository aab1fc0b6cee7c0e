"""qat-report DIR: writes the report of a run anew, or gathers the points of a sweep; several DIRs become one table.

qat-report outputs/digits_cnn/2025-01-31_12-00-00       # integer/report.html and plots/*.png
qat-report multirun/digits_cnn/2025-01-31_12-00-00      # a table, sweep.csv and pareto.png
qat-report outputs/digits_ptq/* outputs/digits_fp16/*   # what different ways to quantize cost, side by side
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from qat.errors import QATError
from qat.report import write, write_sweep
from qat.report.files import INTEGER, REPORT_JSON
from qat.report.run import read
from qat.report.sweep import SweepRow, gather_runs
from qat.report.tables import advice_table, certificate_line, comparison_table, run_table, sweep_table


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code: 0, or 1 with one sentence on stderr."""
    parser = argparse.ArgumentParser(prog="qat-report", description="Report on a run, or on the points of a sweep.")
    parser.add_argument(
        "directories",
        metavar="DIR",
        type=Path,
        nargs="+",
        help="directory of a run or of a sweep; several are compared",
    )
    directory, *others = parser.parse_args(arguments).directories
    console = Console()
    try:
        if others:
            rows = gather_runs([directory, *others])
            console.print(comparison_table(rows))
            _print_failures(rows, console)
        elif (directory / INTEGER / REPORT_JSON).exists():
            _report_run(directory, console)
        else:
            _report_sweep(directory, console)
    except QATError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _report_run(directory: Path, console: Console) -> None:
    page = write(directory)
    files = read(directory)
    console.print(run_table(files.run))
    console.print(certificate_line(files.run))
    if files.advice:
        console.print(advice_table(files.advice))
    console.print(Text(f"written: {page}"), soft_wrap=True)


def _report_sweep(directory: Path, console: Console) -> None:
    rows = write_sweep(directory)
    console.print(sweep_table(rows))
    if len({row.record.way for row in rows if row.record is not None}) > 1:
        console.print(comparison_table(rows))
    _print_failures(rows, console)
    for name in ("sweep.csv", "pareto.png"):
        if (directory / name).exists():
            console.print(Text(f"written: {directory / name}"), soft_wrap=True)


def _print_failures(rows: Sequence[SweepRow], console: Console) -> None:
    for row in rows:
        if row.error:
            console.print(Text(f"{row.name} failed: {row.error}", style="red"), soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
