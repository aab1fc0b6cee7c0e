"""qat-report DIR: writes the report of a run anew, or gathers the points of a sweep.

qat-report outputs/digits_cnn/2025-01-31_12-00-00       # integer/report.html and plots/*.png
qat-report multirun/digits_cnn/2025-01-31_12-00-00      # a table, sweep.csv and pareto.png
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
from qat.report.tables import advice_table, certificate_line, run_table, sweep_table


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code: 0, or 1 with one sentence on stderr."""
    parser = argparse.ArgumentParser(prog="qat-report", description="Report on a run, or on the points of a sweep.")
    parser.add_argument("directory", metavar="DIR", type=Path, help="directory of a run or of a sweep")
    directory = parser.parse_args(arguments).directory
    console = Console()
    try:
        if (directory / INTEGER / REPORT_JSON).exists():
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
    for row in rows:
        if row.error:
            console.print(Text(f"{row.name} failed: {row.error}", style="red"), soft_wrap=True)
    for name in ("sweep.csv", "pareto.png"):
        if (directory / name).exists():
            console.print(Text(f"written: {directory / name}"), soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
