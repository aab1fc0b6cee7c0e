"""Where reports lie in a run's directory, and how they get there whole."""

import importlib.util
from pathlib import Path

from qat.errors import MissingExtraError, ReportError
from qat.files import write_whole

#: In a run's directory: what was exported, the pictures, and what a run that failed leaves.
INTEGER = Path("integer")
PLOTS = Path("plots")
FAILED_JSON = Path("failed.json")
#: What the integer program says of some test samples, where the run's model can draw it.
PREDICTIONS_PNG = PLOTS / "predictions.png"

#: In the directory of an export.
REPORT_JSON = Path("report.json")
HISTORY_JSON = Path("history.json")
PROGRAM_JSON = Path("program.json")
PROGRAM_TENSORS = Path("program.safetensors")
REPORT_HTML = Path("report.html")


def require_report_extra() -> None:
    """Raise `MissingExtraError` unless what draws and lays out a report is installed."""
    missing = [name for name in ("matplotlib", "jinja2") if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f'a report needs {" and ".join(missing)}; install it with pip install "lightning-qat[report]".'
        )


def require_directory(directory: Path) -> None:
    """Raise `ReportError` unless `directory` is one."""
    if not directory.is_dir():
        what = "is a file" if directory.exists() else "does not exist"
        raise ReportError(f"{directory} {what}; give the directory of a run or of a sweep.")


def write_or_remove(path: Path, content: bytes | None) -> None:
    """Write `content`, or remove what an earlier report left there when this one has none."""
    if content is None:
        path.unlink(missing_ok=True)
    else:
        write_whole(path, content)
