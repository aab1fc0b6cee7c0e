"""qat-verify RUN: runs the exported file of a run beside the reference interpreter on the run's whole test split.

qat-verify outputs/digits_cnn/2025-01-31_12-00-00
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import qat
from qat.cli import parts
from qat.cli.parts import MODEL_ONNX
from qat.cli.run import verify_split
from qat.errors import ConfigurationError, ExportError, QATError
from qat.report.files import INTEGER


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code: 0 if the file is equal to the program, and integer but for islands."""
    parser = argparse.ArgumentParser(prog="qat-verify", description="Verify the exported file of a run.")
    parser.add_argument("run", metavar="RUN", type=Path, help="folder of a run, such as outputs/digits_cnn/<date>")
    run_dir = parser.parse_args(arguments).run
    try:
        verify_run(run_dir)
    except QATError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def verify_run(run_dir: Path) -> None:
    """Print the verification of a run. Raises `ExportError` if its file is not integer or not equal.

    Float islands are accepted where a rule left operations in float, or the run's `export.nonlinear` asks for them.
    """
    config = parts.saved_config(run_dir)
    if not (run_dir / MODEL_ONNX).is_file():
        raise ConfigurationError(f"{str(run_dir / MODEL_ONNX)!r} does not exist; export it with qat-export {run_dir}.")
    program = qat.IntegerProgram.load(run_dir / INTEGER)
    # The network's weights are in the program: a checkpoint to start from is not asked for again.
    if "checkpoint" in config.model:
        config.model.checkpoint = None
    report = verify_split(program, run_dir, parts.data_of(config), parts.model_of(config))
    print(report)
    ruled = {operation.name for operation in program.float_operations}
    chosen = parts.nonlinear_of(config) == "float_island" or set(report.islands) <= ruled
    if not report.ok and not (chosen and report.as_exported):
        raise ExportError(
            f"{str(run_dir / MODEL_ONNX)!r} is not the integer program beside it; export it with qat-export {run_dir}."
        )


if __name__ == "__main__":
    sys.exit(main())
