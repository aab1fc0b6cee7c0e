"""Writes the report of one run: reads what the run left, draws it, lays it out."""

from dataclasses import dataclass
from pathlib import Path

from qat.files import write_whole
from qat.integer.program import IntegerProgram
from qat.report.advice import Advice, advise
from qat.report.certified import Certified, read_certified
from qat.report.files import (
    HISTORY_JSON,
    INTEGER,
    PLOTS,
    PREDICTIONS_PNG,
    PROGRAM_JSON,
    PROGRAM_TENSORS,
    REPORT_HTML,
    REPORT_JSON,
    require_directory,
    require_report_extra,
    write_or_remove,
)
from qat.report.records import EpochRecord, RunRecord, read_history, read_run
from qat.report.weights import LayerWeights, weight_codes


@dataclass(frozen=True)
class RunFiles:
    """All that is known of a run. history, weights: empty where the run left none.

    predictions: PNG; certified: the certificate of its files. None likewise.
    """

    run: RunRecord
    history: tuple[EpochRecord, ...]
    weights: dict[str, LayerWeights]
    predictions: bytes | None = None
    certified: Certified | None = None

    @property
    def advice(self) -> list[Advice]:
        """What to try for the layers that lose most."""
        return advise(self.run, self.history, [name for name, weights in self.weights.items() if weights.per_tensor])


def read(run_dir: str | Path, export_dir: str | Path | None = None) -> RunFiles:
    """Read what a run left. Raises `ReportError` or `ProgramError` where a file is damaged or there is no report.

    export_dir: holds report.json and what was exported; by default `integer/` in the run's directory.
    """
    require_directory(Path(run_dir))
    directory = _export_dir(run_dir, export_dir)
    run = read_run(directory / REPORT_JSON)
    history = read_history(directory / HISTORY_JSON)
    weights = {}
    if (directory / PROGRAM_JSON).exists() and (directory / PROGRAM_TENSORS).exists():
        weights = weight_codes(IntegerProgram.load(directory))
    drawn = Path(run_dir) / PREDICTIONS_PNG
    predictions = drawn.read_bytes() if drawn.exists() else None
    return RunFiles(run, history, weights, predictions, read_certified(directory))


def write(run_dir: str | Path, export_dir: str | Path | None = None) -> Path:
    """Write `report.html` beside report.json, and its pictures as `plots/*.png` in `run_dir`; returns the page's path.

    export_dir: as for `read`.
    A picture that has nothing to show is left out, the page says why, and an older file of its name is removed.
    """
    require_report_extra()
    from qat.report.page import draw, render

    files = read(run_dir, export_dir)
    pictures = draw(files)
    for name, content in pictures.items():
        write_or_remove(Path(run_dir) / PLOTS / f"{name}.png", content)
    page = _export_dir(run_dir, export_dir) / REPORT_HTML
    write_whole(page, render(files, pictures).encode())
    return page


def _export_dir(run_dir: str | Path, export_dir: str | Path | None) -> Path:
    return Path(run_dir) / INTEGER if export_dir is None else Path(export_dir)
