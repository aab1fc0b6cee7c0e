"""The points of a sweep side by side: gathered to rows, a csv and a plot of accuracy against size."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qat.errors import ReportError
from qat.files import write_whole
from qat.report.files import (
    FAILED_JSON,
    INTEGER,
    REPORT_JSON,
    require_directory,
    require_report_extra,
    write_or_remove,
)
from qat.report.records import RunRecord, read_run

COLUMNS = (
    "point",
    "way",
    "status",
    "bits_per_weight",
    "metric",
    "float",
    "fake_quant",
    "integer",
    "float_bytes",
    "integer_bytes",
    "size_ratio",
    "latency_ms",
    "latency_ratio",
    "float_ops",
    "differing",
    "error",
)


@dataclass(frozen=True)
class SweepRow:
    """One point. name: its folder. record: what it reports; None where it failed, and then error says why."""

    name: str
    record: RunRecord | None = None
    error: str | None = None

    @property
    def size(self) -> float | None:
        """Bytes of the integer file."""
        return None if self.record is None else self.record.size_bytes.get("integer")

    @property
    def score(self) -> float | None:
        """The headline's metric on the integer file."""
        return None if self.record is None else self.record.metric_of("integer")


def gather(sweep_dir: str | Path) -> list[SweepRow]:
    """The points of a sweep, in the order of their folders' names; a failed point is a row like any other.

    A point is a folder with `integer/report.json`, `failed.json` or, where it was killed, only its `.hydra` settings.
    Raises `ReportError` where there is none.
    """
    directory = Path(sweep_dir)
    require_directory(directory)
    marks = (str(INTEGER / REPORT_JSON), str(FAILED_JSON), ".hydra")
    folders = {path.parents[len(Path(mark).parts) - 1] for mark in marks for path in directory.rglob(mark)}
    folders.discard(directory)
    if not folders:
        raise ReportError(
            f"{directory} holds no {(INTEGER / REPORT_JSON).as_posix()} and no folders of a sweep; give the directory "
            "of a finished run, or of a sweep made with qat-train -m."
        )
    return [_row(directory, folder) for folder in sorted(folders, key=lambda folder: _natural(folder.as_posix()))]


def gather_runs(directories: Sequence[str | Path]) -> list[SweepRow]:
    """The runs in several folders, each that of a run or of a sweep, in the order given.

    A run is called after its recipe, or where several are of one after its folder. Raises `ReportError` for a folder
    that holds none.
    """
    rows, folders = [], []
    for directory in map(Path, directories):
        require_directory(directory)
        if (directory / INTEGER / REPORT_JSON).exists():
            row = _row(directory.parent, directory)
            found = [SweepRow(row.record.recipe or row.name, row.record) if row.record else row]
        else:
            found = gather(directory)
        rows += found
        folders += [directory.as_posix()] * len(found)
    names = [row.name for row in rows]
    return [
        SweepRow(folder, row.record, row.error) if names.count(row.name) > 1 else row
        for folder, row in zip(folders, rows, strict=True)
    ]


def write_sweep(sweep_dir: str | Path) -> list[SweepRow]:
    """Write `sweep.csv` and, where a point finished, `pareto.png` into `sweep_dir`; returns the rows."""
    require_report_extra()
    from qat.report.figures.pareto import accuracy_against_size

    directory = Path(sweep_dir)
    rows = gather(directory)
    write_whole(directory / "sweep.csv", to_csv(rows).encode())
    write_or_remove(directory / "pareto.png", accuracy_against_size(rows))
    return rows


def pareto_front(rows: Sequence[SweepRow]) -> list[SweepRow]:
    """The points that no other beats in size without losing score, smallest first."""
    front: list[SweepRow] = []
    finished = [row for row in rows if row.size is not None and row.score is not None]
    for row in sorted(finished, key=lambda row: (row.size, -row.score, row.name)):
        if not front or row.score > front[-1].score:
            front.append(row)
    return front


def short_names(names: Sequence[str]) -> list[str]:
    """What tells the points apart: settings that all share are left out, of the others the last two words stay.

    `quant.weight.bits=4,seed=1` among points with the same seed becomes `weight.bits=4`.
    """
    parts = [name.split(",") for name in names]
    common = set.intersection(*map(set, parts)) if len(parts) > 1 else set()
    shortened = []
    for name, settings in zip(names, parts, strict=True):
        kept = [_last_words(setting) for setting in settings if setting not in common]
        shortened.append(", ".join(kept) or name)
    return shortened if len(set(shortened)) == len(set(names)) else list(names)


def to_csv(rows: Sequence[SweepRow]) -> str:
    """The rows as comma-separated values with full precision; empty where a value is absent."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n", restval="")
    writer.writeheader()
    for row in rows:
        writer.writerow({"point": row.name, **_cells(row)})
    return buffer.getvalue()


def _cells(row: SweepRow) -> dict[str, object]:
    if row.record is None:
        return {"status": "failed", "error": row.error}
    record = row.record
    runtimes = record.runtime_mismatches.values()
    cells = {
        "way": record.way,
        "status": _status(record),
        "bits_per_weight": record.bits_per_weight,
        "metric": record.metric,
        "float": record.metric_of("float") if record.has_float_baseline else None,
        **{stage: record.metric_of(stage) for stage in ("fake_quant", "integer")},
        "float_bytes": record.size_bytes.get("float"),
        "integer_bytes": row.size,
        "size_ratio": record.size_ratio,
        "latency_ms": record.latency_ms.get("integer"),
        "latency_ratio": record.latency_ratio,
        "float_ops": None if record.float_ops is None else len(record.float_ops),
        "differing": sum(mismatch.differing for mismatch in runtimes) if runtimes else None,
    }
    return {name: value for name, value in cells.items() if value is not None}


def _status(record: RunRecord) -> str:
    if not record.is_integer:
        return "not integer" if record.as_exported else "not the program"
    if record.equal_but_islands:
        return "float islands"
    return {True: "verified", False: "not equal", None: "not verified"}[record.certified]


def _row(directory: Path, folder: Path) -> SweepRow:
    name = folder.relative_to(directory).as_posix()
    if (folder / FAILED_JSON).exists():
        return SweepRow(name, error=_failure(folder / FAILED_JSON))
    if not (folder / INTEGER / REPORT_JSON).exists():
        return SweepRow(name, error="ended without a report; run this point again.")
    try:
        return SweepRow(name, record=read_run(folder / INTEGER / REPORT_JSON))
    except ReportError as error:  # one damaged point must not hide the others
        return SweepRow(name, error=str(error).replace(f"{folder}/", ""))


def _failure(path: Path) -> str:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return f"failed, and its {FAILED_JSON} is damaged; run this point again."
    message = data.get("error") if isinstance(data, dict) else None
    return message if isinstance(message, str) and message else "failed without a message; run this point again."


def _natural(text: str) -> list[tuple[int, int, str]]:
    """A key that sorts bits=8 before bits=16."""
    key: list[tuple[int, int, str]] = []
    digits = ""
    for character in [*text, ""]:
        if character.isascii() and character.isdigit():
            digits += character
            continue
        if digits:
            key.append((0, int(digits), digits))
            digits = ""
        key.append((1, 0, character))
    return key


def _last_words(setting: str) -> str:
    key, equals, value = setting.partition("=")
    return ".".join(key.split(".")[-2:]) + equals + value
