"""qat-verify RUN: runs every exported file of a run beside the reference interpreter on the run's whole test split.

qat-verify outputs/digits_cnn/2025-01-31_12-00-00
qat-verify outputs/digits_cnn/2025-01-31_12-00-00 --certificate
"""

import argparse
import pickle
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytorch_lightning
import torch
from omegaconf import DictConfig

import qat
from qat import certificate
from qat.cli import parts
from qat.cli.failure import as_sentence
from qat.cli.run import SPLIT, verify_split
from qat.emitters import RUNTIMES, exported_in
from qat.errors import ConfigurationError, ExportError, QATError
from qat.real.program import RealProgram
from qat.report.files import INTEGER
from qat.training.delivery import refresh_page
from qat.training.discovery import find_network


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code: 0 if each file is equal to the program, and integer but for islands."""
    parser = argparse.ArgumentParser(prog="qat-verify", description="Verify the exported files of a run.")
    parser.add_argument("run", metavar="RUN", type=Path, help="folder of a run, such as outputs/digits_cnn/<date>")
    parser.add_argument(
        "--certificate",
        action="store_true",
        help=f"derive RUN/{INTEGER}/{certificate.CERTIFICATE_JSON} again, and fail on any difference",
    )
    options = parser.parse_args(arguments)
    try:
        (verify_certificate if options.certificate else verify_run)(options.run)
    except QATError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def verify_run(run_dir: Path) -> None:
    """Print the verification of a run, and certify what was found equal.

    A file whose activations are not static is printed as no integer file, and not certified.

    Raises `ExportError` if a file was changed since it was certified, is not integer or not equal. Float islands are
    accepted where a rule left operations in float, the run's `export.nonlinear` asks for them, or the runtime has none
    of them in integers.
    """
    config, folder = parts.saved_config(run_dir), run_dir / INTEGER
    files = _files_in(run_dir)
    program = parts.program_of(folder)
    if (folder / certificate.CERTIFICATE_JSON).exists():
        certificate.check_hashes(folder)
    report = _verified(run_dir, config, program, files)
    print(report)
    if isinstance(program, RealProgram):  # which is no integer one, and never certified
        if not report.as_exported:
            raise ExportError(
                f"{' and '.join(map(str, files.values()))} is not the program beside it; export it again with "
                f"qat-export {run_dir}."
            )
        return
    ruled = {operation.name for operation in program.float_operations}
    islands_asked_for = parts.nonlinear_of(config) == "float_island"
    wrong = [
        str(files[runtime])
        for runtime, entry in report.files.items()
        if not (
            entry.ok
            or entry.as_exported
            and (islands_asked_for or not RUNTIMES[runtime].both_forms or set(entry.islands) <= ruled)
        )
    ]
    if wrong:
        raise ExportError(
            f"{' and '.join(wrong)} is not the integer program beside it; export it again with qat-export {run_dir}."
        )
    certificate.write(certificate.certificate(program, folder, files, certificate.Evidence(SPLIT, report)), folder)
    refresh_page(folder)


def verify_certificate(run_dir: Path) -> None:
    """Derive the certificate of a run again. Raises `ExportError` with what differs."""
    folder = run_dir / INTEGER
    certified = certificate.read(folder)
    certificate.check_hashes(folder)
    program, files = qat.IntegerProgram.load(folder), _files_in(run_dir)
    evidence = None
    if certified.get("data") is not None:
        config = parts.saved_config(run_dir)
        evidence = certificate.Evidence(SPLIT, _verified(run_dir, config, program, files, repeats=0))
    derived = certificate.certificate(program, folder, files, evidence)
    found = certificate.differences(certified, derived)
    if found:
        raise ExportError(
            f"{str(folder / certificate.CERTIFICATE_JSON)!r} differs from what its files are in {len(found)} "
            f"places: {'; '.join(found[:5])}."
        )
    print(f"{folder / certificate.CERTIFICATE_JSON}: derived again for {', '.join(files)}, no difference")


def _files_in(run_dir: Path) -> dict[str, Path]:
    """The exported files of a run, by runtime."""
    files = exported_in(run_dir / INTEGER)
    if not files:
        first = run_dir / INTEGER / next(iter(RUNTIMES.values())).file
        raise ConfigurationError(f"{str(first)!r} does not exist; export it with qat-export {run_dir}.")
    return files


def _verified(
    run_dir: Path, config: DictConfig, program: qat.IntegerProgram, files: Mapping[str, Path], repeats: int = 30
) -> qat.VerificationReport:
    model = _trained_model(config, run_dir)
    float_network = None if model is None else find_network(model, None).eval()
    if model is None:
        print(f"the float network is not run: there is no checkpoint of its weights in {run_dir}", file=sys.stderr)
        model = parts.model_of(config)
    return verify_split(program, files, parts.data_of(config), model, None, float_network, repeats)


def _trained_model(config: DictConfig, run_dir: Path) -> pytorch_lightning.LightningModule | None:
    """The run's model with the weights it ended with, in float; None where the run has no checkpoint of them."""
    paths = run_dir / INTEGER / "trained.ckpt", run_dir / parts.CHECKPOINTS / "last.ckpt"
    path = next((path for path in paths if path.is_file()), None)
    # A checkpoint to start from is not asked for again.
    if "checkpoint" in config.model:
        config.model.checkpoint = None
    if path is None:
        return None
    model = parts.model_of(config)
    try:
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True)["state_dict"])
    except (OSError, RuntimeError, KeyError, pickle.UnpicklingError) as error:
        raise ExportError(
            f"{str(path)!r} does not hold the weights of the run's model ({as_sentence(error)}); remove it to verify "
            "without the float network."
        ) from error
    return model


if __name__ == "__main__":
    sys.exit(main())
