"""qat-export RUN: writes the integer program of a run for a runtime, and checks the file on it.

qat-export outputs/digits_cnn/2025-01-31_12-00-00 --runtime litert
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import qat
from qat import certificate
from qat.cli import parts
from qat.emitters import RUNTIMES, export_all, exported_in, runtime_named
from qat.errors import ConfigurationError, ExportError, QATError
from qat.integer.image_input import with_image_input, without_image_inputs
from qat.integer.images import ImageScaling
from qat.report.files import INTEGER, PROGRAM_JSON
from qat.training.delivery import refresh_page


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code: 0, or 1 with one sentence on stderr."""
    parser = argparse.ArgumentParser(prog="qat-export", description="Export the integer program of a run.")
    parser.add_argument("run", metavar="RUN", type=Path, help="folder of a run, such as outputs/digits_cnn/<date>")
    parser.add_argument(
        "--runtime", default="onnxruntime", help=f"what will run it: {', '.join(RUNTIMES)} (default: %(default)s)"
    )
    parser.add_argument(
        "--nonlinear",
        default="integer",
        help="how softmax, normalization and division are computed: integer, or float_island (default: %(default)s)",
    )
    parser.add_argument("--labels", metavar="FILE", type=Path, help="a text file with the name of a class in each line")
    parser.add_argument(
        "--channels-last", action="store_true", help="pictures as (N, H, W, C), where the runtime has both layouts"
    )
    parser.add_argument(
        "--unpacked-weights",
        action="store_true",
        help="weights of 4 and 2 bits as int8 where the runtime is then faster: a larger file (litert)",
    )
    parser.add_argument(
        "--input",
        choices=parts.INPUTS,
        help="what the files of the run take: real, the network's own numbers, or uint8_image, raw pictures (default: "
        "as they are)",
    )
    files = ", ".join(entry.file for entry in RUNTIMES.values())
    parser.add_argument(
        "--output", metavar="FILE", type=Path, help=f"what to write (default, by runtime: {files} in RUN/{INTEGER})"
    )
    options = parser.parse_args(arguments)
    try:
        labels = read_labels(options.labels) if options.labels is not None else ()
        path = export_run(
            options.run,
            options.runtime,
            options.output,
            nonlinear=options.nonlinear,
            labels=labels,
            channels_last=options.channels_last,
            unpacked_weights=options.unpacked_weights,
            kind=options.input,
        )
    except QATError as error:
        print(error, file=sys.stderr)
        return 1
    print(path)
    return 0


def export_run(
    run_dir: Path, runtime: str, output: Path | None = None, kind: str | None = None, channels_last=False, **choices
) -> Path:
    """Export the program in `run_dir` to `output`; returns the path written. choices: as for `qat.export`.

    kind: what the file is to take, one of `parts.INPUTS`; None: what the run's program takes. Where the file is the
    run's own, the run's program becomes the one that takes it, and what was exported to the folder before is exported
    again. The certificate in it is then written anew, from random codes alone: `qat-verify` compares on data.
    """
    folder = run_dir / INTEGER
    is_real = (folder / parts.REAL_PROGRAM_JSON).is_file()
    if not is_real and not (folder / PROGRAM_JSON).is_file():
        raise ConfigurationError(
            f"{str(run_dir)!r} has no {INTEGER / PROGRAM_JSON}; give the folder of a run that qat-train finished."
        )
    path = output or folder / runtime_named(runtime).file
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"{str(path)!r} cannot be written ({error.strerror}); give another path with --output."
        ) from error
    if is_real:
        if kind == "uint8_image":
            raise ConfigurationError(
                f"{str(run_dir)!r} is no integer program, and raw pictures need one; export it with real inputs."
            )
        qat.export(parts.program_of(folder), path, runtime=runtime, channels_last=channels_last, **choices)
        return path
    saved = qat.IntegerProgram.load(folder)
    program = saved if kind is None else _taking(saved, kind, run_dir, channels_last)
    if kind != "uint8_image":
        choices |= {"channels_last": channels_last}
    pages = {"image_scaling": _scaling(run_dir)} if runtime == "web" else {}
    qat.export(program, path, runtime=runtime, **choices, **pages)
    if output is None:
        if program.inputs != saved.inputs:
            others = [name for name in exported_in(folder) if name != runtime]
            export_all(program, folder, others, **choices | {"channels_last": False, "unpacked_weights": False})
            program.save(folder)
        certificate.write(certificate.certificate(program, folder, exported_in(folder), None), folder)
        refresh_page(folder)
    return path


def _scaling(run_dir: Path) -> ImageScaling | None:
    """How the data module of a run makes numbers of pictures, None where it does not say."""
    return getattr(parts.data_of(parts.saved_config(run_dir)), "image_scaling", None)


def _taking(program: qat.IntegerProgram, kind: str, run_dir: Path, channels_last: bool) -> qat.IntegerProgram:
    """The program with inputs of `kind`, raw pictures scaled as the data module of the run says."""
    real = without_image_inputs(program)
    if kind == "real":
        return real
    return with_image_input(real, parts.scaling_of(parts.data_of(parts.saved_config(run_dir)), channels_last))


def read_labels(path: Path) -> list[str]:
    """The lines of a text file."""
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ExportError(f"the labels {str(path)!r} cannot be read ({error}); give a text file.") from error


if __name__ == "__main__":
    sys.exit(main())
