"""qat-export RUN: writes the integer program of a run for a runtime, and checks the file on it.

qat-export outputs/digits_cnn/2025-01-31_12-00-00 --runtime onnxruntime
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import qat
from qat.cli.parts import MODEL_ONNX
from qat.errors import ConfigurationError, QATError
from qat.report.files import INTEGER, PROGRAM_JSON


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code: 0, or 1 with one sentence on stderr."""
    parser = argparse.ArgumentParser(prog="qat-export", description="Export the integer program of a run.")
    parser.add_argument("run", metavar="RUN", type=Path, help="folder of a run, such as outputs/digits_cnn/<date>")
    parser.add_argument("--runtime", default="onnxruntime", help="what will run the file (default: %(default)s)")
    parser.add_argument(
        "--nonlinear",
        default="integer",
        help="how softmax, normalization and division are computed: integer, or float_island (default: %(default)s)",
    )
    parser.add_argument("--output", metavar="FILE", type=Path, help=f"file to write (default: RUN/{MODEL_ONNX})")
    options = parser.parse_args(arguments)
    try:
        path = export_run(options.run, options.runtime, options.output, options.nonlinear)
    except QATError as error:
        print(error, file=sys.stderr)
        return 1
    print(path)
    return 0


def export_run(run_dir: Path, runtime: str, output: Path | None = None, nonlinear: str = "integer") -> Path:
    """Export the program in `run_dir` to `output`; returns the path written. nonlinear: as for `qat.export`."""
    if not (run_dir / INTEGER / PROGRAM_JSON).is_file():
        raise ConfigurationError(
            f"{str(run_dir)!r} has no {INTEGER / PROGRAM_JSON}; give the folder of a run that qat-train finished."
        )
    path = output or run_dir / MODEL_ONNX
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"{str(path)!r} cannot be written ({error.strerror}); give another path with --output."
        ) from error
    qat.export(qat.IntegerProgram.load(run_dir / INTEGER), path, runtime=runtime, nonlinear=nonlinear)
    return path


if __name__ == "__main__":
    sys.exit(main())
