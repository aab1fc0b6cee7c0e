"""Every run in every runtime: differing codes, bytes and latency, into docs/runtimes.md.

    python tests/benchmarks/runtimes_table.py RUN...

RUN is the folder of a run that qat-train finished, or one that holds such folders. Each is exported for each runtime
and run on its whole test split. What was measured is kept in docs/runtimes.json after every cell, and not measured
again while program and file are the same; so the command goes on where it was interrupted. A runtime that cannot run a
network is named with the reason.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from runtime_cells import Cell, Remembered, Run

from qat import verification
from qat.emitters import RUNTIMES
from qat.errors import QATError
from qat.files import write_whole
from qat.report.files import INTEGER, PROGRAM_JSON

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "runtimes.md"

#: What the command writes stands between these lines; what stands around them is left alone.
BEGIN, END = "<!-- written by tests/benchmarks/runtimes_table.py -->", "<!-- end -->"

_HEAD = """\
# Networks in every runtime

"""

_EXPLANATION = """\
Written by `python tests/benchmarks/runtimes_table.py RUN...`. Every row is one run; every file was run on
{samples}.

*float* and *integer* are top-1, of the float weights that training began with and of the integer program; *codes* are
how many output codes were compared, where a cell has no number of its own. A cell is *differing codes · bytes ·
latency*: output codes that are not the reference interpreter's (with the rounding of the runtime); bytes of the file
over what the weights alone take, bits x weights / 8 (of C the constants in flash, of a page the model without its
runtime); and the time of the float network in the same runtime over that of the file, one sample, medians in turn
(above 1 the integer file is faster). A dash: not measured. A number in brackets: there is no such file, for the reason
below.
"""


@dataclass
class Row:
    """One run. training: how it was quantized. cells: by runtime.

    float_metrics: of the weights that it began with, on `float_limit` samples, as `Cell.limit`.
    """

    run: str
    network: str
    bits: str
    training: str
    weight_bytes: float
    float_metrics: Mapping[str, float] = field(default_factory=dict)
    float_limit: int | None = None
    cells: dict[str, Cell] = field(default_factory=dict)

    @property
    def codes(self) -> int:
        """How many output codes were compared, of the files that were run on most samples."""
        return max((cell.codes for cell in self.cells.values()), default=0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing and write the document; 0 if no file differs from its program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", metavar="RUN", nargs="+", type=Path)
    parser.add_argument("--runtimes", default=",".join(RUNTIMES), help="which, with commas (default: %(default)s)")
    parser.add_argument(
        "--document", type=Path, default=DOCUMENT, help="default: docs/runtimes.md; its .json beside it"
    )
    parser.add_argument("--data", help="folder of the data, in place of the one that the runs were trained on")
    parser.add_argument("--limit", type=int, help="run only so many test samples")
    parser.add_argument("--keep-files", action="store_true", help="measure the files that are there, export the others")
    parser.add_argument(
        "--times", action="store_true", help="measure the latency of all cells again, as on a machine that is idle now"
    )
    parser.add_argument(
        "--remember", metavar="DIR", type=Path, help="keep results of the interpreter there, and use them"
    )
    parser.add_argument("--threads", type=int, default=1, help="of torch (default: 1)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    Remembered.kept = options.remember
    verification.ACCUMULATED_SAMPLES = 0  # the table does not show them, and they take as long as all the rest
    try:
        rows = measured(options)
    except QATError as error:
        print(error, file=sys.stderr)
        return 1
    write_whole(options.document, document(rows, options.document).encode())
    return 1 if any(cell.differing for row in rows for cell in row.cells.values()) else 0


def measured(options: argparse.Namespace) -> list[Row]:
    """The rows of all runs, in the order given; those measured before are kept beside them."""
    folders = [folder for path in options.runs for folder in runs_in(path)]
    runtimes = options.runtimes.split(",")
    store = options.document.with_suffix(".json")
    rows = stored(store)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("cells", total=len(folders) * len(runtimes))
        for folder in folders:
            run = Run(folder, options.data, options.limit)
            row = Row(folder.name, run.network, run.bits, run.training, run.weight_bytes)
            known = rows.get(folder.name, row)
            row.cells, row.float_metrics, row.float_limit = dict(known.cells), known.float_metrics, known.float_limit
            rows[folder.name] = row
            if not row.float_metrics or row.float_limit not in (None, run.limit):
                row.float_metrics, row.float_limit = run.float_metrics(), run.limit
            for runtime in runtimes:
                progress.update(task, description=f"{folder.name}, {runtime}")
                row.cells[runtime] = run.cell(runtime, row.cells.get(runtime), options.keep_files, options.times)
                write_whole(store, (json.dumps([asdict(row) for row in rows.values()], indent=1) + "\n").encode())
                progress.advance(task)
    return list(rows.values())


def runs_in(path: Path) -> list[Path]:
    """The run that `path` is, or those that it holds."""
    if (path / INTEGER / PROGRAM_JSON).is_file():
        return [path]
    return sorted(folder for folder in path.iterdir() if (folder / INTEGER / PROGRAM_JSON).is_file())


def stored(path: Path) -> dict[str, Row]:
    """The rows in a json that an earlier call wrote, by run."""
    if not path.exists():
        return {}
    rows = {}
    for entry in json.loads(path.read_text()):
        cells = {runtime: Cell(**cell) for runtime, cell in entry.pop("cells").items()}
        rows[entry["run"]] = Row(**entry, cells=cells)
    return rows


def document(rows: Sequence[Row], path: Path) -> str:
    """The whole text of the document: what this command writes, in what stands in `path` around it."""
    before, after = _HEAD, ""
    if path.exists():
        text = path.read_text()
        if BEGIN in text and END in text:
            before, after = text[: text.index(BEGIN)], text[text.index(END) + len(END) :].lstrip("\n")
    return f"{before}{BEGIN}\n\n{explanation(rows)}\n{table(rows)}\n{END}\n" + (f"\n{after}" if after else "")


def explanation(rows: Sequence[Row]) -> str:
    """What the columns are, and on how many samples files were run."""
    limits = {cell.limit for row in rows for cell in row.cells.values() if cell.refusal is None} - {None}
    samples = "the whole test split"
    if limits:
        samples += f", or on its first {min(limits):,} samples where the numbers of codes tell so"
    return _EXPLANATION.format(samples=samples)


def table(rows: Sequence[Row]) -> str:
    """The table of all rows, and under it why cells are missing and what the figures hold for."""
    runtimes = [runtime for runtime in RUNTIMES if any(runtime in row.cells for row in rows)]
    reasons: dict[str, str] = {}
    head = ["network", "bits", "training", "weights, bytes", "float", "integer", "codes", *runtimes]
    lines = [head, ["---"] * 3 + ["---:"] * 4 + ["---"] * len(runtimes)]
    for row in rows:
        files = [cell for cell in row.cells.values() if cell.refusal is None]
        accuracy = next((cell.metrics for cell in files if cell.metrics), {})
        codes = f"{row.codes:,}" if row.codes else "–"
        lines.append(
            [row.network, row.bits, row.training, f"{row.weight_bytes:,.0f}"]
            + [percent(row.float_metrics), percent(accuracy), codes]
            + [entry(row, row.cells.get(runtime), reasons) for runtime in runtimes]
        )
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
    if reasons:
        text += "\n" + "".join(f"- ({number}) {reason}\n" for number, reason in enumerate(reasons.values(), 1))
    return text + "\n" + conditions(rows, runtimes)


def entry(row: Row, cell: Cell | None, reasons: dict[str, str]) -> str:
    """The text of one cell. reasons: those that were met so far, added to; the same problems are one reason, kept as
    it was met first."""
    if cell is None:
        return "–"
    if cell.refusal is not None:
        kind = json.dumps(cell.reasons) if cell.reasons else cell.refusal
        reasons.setdefault(kind, cell.refusal)
        return f"({list(reasons).index(kind) + 1})"
    ratio = cell.latency_ratio
    codes = f"{cell.differing:,}"
    if cell.codes != row.codes:
        codes += f" of {cell.codes:,}"
    if cell.float_ops:
        codes += f", {cell.float_ops} in float"
    return f"{codes} · {cell.bytes / row.weight_bytes:.2f} · {'–' if ratio is None else f'{ratio:.2f}'}"


def percent(metrics: Mapping[str, float]) -> str:
    """The first metric, a share, as hundredths."""
    return f"{100 * next(iter(metrics.values())):.2f}" if metrics else "–"


def conditions(rows: Sequence[Row], runtimes: Sequence[str]) -> str:
    """What each runtime's figures hold for, as of the first row that has a file for it."""
    lines = []
    for runtime in runtimes:
        cells = (row.cells[runtime] for row in rows if runtime in row.cells)
        found = next((cell.conditions for cell in cells if cell.refusal is None), None)
        if found:
            lines.append(f"- {runtime}: " + "; ".join(f"{name} {value}" for name, value in found.items()) + "\n")
    return "".join(lines)


if __name__ == "__main__":
    sys.exit(main())
