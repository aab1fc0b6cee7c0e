"""The end of a run: convert, export, verify, and write down what was found."""

import itertools
import json
import logging
import shutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import nn

from qat import certificate
from qat import report as reports
from qat.emitters import export_all, remove_exported
from qat.errors import ExportError, MissingExtraError
from qat.files import write_whole
from qat.functional import signal_to_quantization_noise
from qat.inject.handle import Handle
from qat.integer.image_input import with_image_input
from qat.integer.images import ImageScaling
from qat.integer.program import IntegerProgram
from qat.lowering.convert import convert
from qat.real.program import RealProgram
from qat.report.files import INTEGER, REPORT_JSON
from qat.report.records import EXPORTED, STAGES
from qat.targets import TargetName, target_named
from qat.training.history import History, finite
from qat.training.modes import modes_kept
from qat.verification import RealReport, VerificationReport, verify_files

_LOG = logging.getLogger("qat")

#: What `deliver` writes into its folder, beside the exported files.
DELIVERED = (
    "program.json", "program.safetensors", "real_program.json", "real_program.safetensors", "history.json",
    "report.json", "report.html", certificate.CERTIFICATE_JSON,
)  # fmt: skip

#: What batch norms keep, by the end of its name.
_RUNNING = ("running_mean", "running_var")

#: The split that the callback verifies on, where the trainer has one.
VERIFIED_SPLIT = "validation"
#: Batches that the callback verifies on; a recipe verifies on its whole test split.
VERIFIED_BATCHES = 8


def deliver(
    handle: Handle,
    directory: Path,
    target: TargetName,
    batches: Iterable,
    history: History,
    nonlinear: str = "integer",
    image_input: ImageScaling | None = None,
) -> tuple[IntegerProgram | RealProgram, VerificationReport | RealReport]:
    """Write program, a file for each runtime of `target`, report, history, certificate and page into `directory`.

    They take the place of those of an earlier run. nonlinear: as for `qat.export`. image_input: as for `QATCallback`.
    Files of networks whose activations are not static are no integer files, and have no certificate.

    Raises `ExportError`, and leaves no model, where that is not equal to the program, or a weight is not finite.
    """
    directory.mkdir(parents=True, exist_ok=True)
    remove_exported(directory)
    for name in DELIVERED:  # cut off half way, the folder must not hold files of two runs
        (directory / name).unlink(missing_ok=True)
    module = handle.module
    refuse_not_finite(module)
    program = convert(module)
    if image_input is not None:
        program = with_image_input(program, image_input)
    program.save(directory)
    files = export_all(program, directory, target_named(target).runtimes, nonlinear=nonlinear)
    with modes_kept(module):
        module.eval()
        handle.measure()
        report = verify_files(program, files, itertools.islice(batches, VERIFIED_BATCHES), module=module)
    write_json(directory / "history.json", {"epochs": history.entries})
    write_report(directory, report, program, handle)
    certify(program, directory, files, report, VERIFIED_SPLIT)
    write_page(directory)
    refuse_unequal(report, files)
    _LOG.info("exported %s", ", ".join(map(str, files.values())))
    return program, report


def certify(
    program: IntegerProgram, directory: Path, files: Mapping[str, Path], report: VerificationReport, split: str
) -> None:
    """Write the certificate of `files`, by runtime, verified as `report` says; none where one of them is not equal.

    None either of a program that is not integer.
    """
    if not report.as_exported or not isinstance(program, IntegerProgram):
        (directory / certificate.CERTIFICATE_JSON).unlink(missing_ok=True)
        return
    evidence = certificate.Evidence(split, report)
    certificate.write(certificate.certificate(program, directory, files, evidence), directory)


def refuse_not_finite(module: nn.Module) -> None:
    """Raise `ExportError` for NaN or infinity in a parameter or a running statistic, which have no integers.

    Other buffers may hold infinity on purpose, as masks do.
    """
    statistics = ((name, buffer) for name, buffer in module.named_buffers() if name.endswith(_RUNNING))
    for name, tensor in (*module.named_parameters(), *statistics):
        bad = int((~torch.isfinite(tensor)).sum())
        if bad:
            raise ExportError(
                f"{name} holds {bad} NaN or infinite of {tensor.numel()} values, so nothing is exported; lower the "
                "learning rate, and go on from a checkpoint of before."
            )


def refuse_unequal(report: VerificationReport, files: Mapping[str, Path]) -> None:
    """Take away the files that verification found to compute in float, or other codes, and raise `ExportError`.

    Float islands that were asked for, and what follows from their codes, are no reason.
    """
    wrong = {runtime: entry for runtime, entry in report.files.items() if not entry.as_exported}
    if not wrong:
        return
    for runtime in wrong:
        if files[runtime].is_dir():
            shutil.rmtree(files[runtime])
        files[runtime].unlink(missing_ok=True)
    differing = {runtime: entry.mismatch.differing for runtime, entry in wrong.items()}
    floats = [name for entry in wrong.values() for name in entry.float_ops]
    raise ExportError(
        f"{' and '.join(str(files[runtime]) for runtime in wrong)} was taken away, since it is not the program: codes "
        f"that differ {differing}, of {report.samples} samples, float operations {floats}; report.json beside it has "
        "the details, and the trained weights are kept."
    )


def write_page(directory: Path) -> Path | None:
    """Write report.html into `directory` and its pictures into plots/; returns the path of the page.

    The pictures of an `integer/` go to the run's folder around it, those of any other folder into that folder. Without
    the packages that draw them nothing is written but a note, and None returned.
    """
    run_dir = directory.parent if directory.name == INTEGER.name else directory
    try:
        return reports.write(run_dir, directory)
    except MissingExtraError as error:
        print(f"no report.html was written: {error}", file=sys.stderr)
        return None


def refresh_page(directory: Path) -> None:
    """Write report.html again, where there is a report, so that it shows the certificate beside it."""
    if (directory / REPORT_JSON).exists():
        write_page(directory)


def write_report(
    directory: Path, report: VerificationReport, program: IntegerProgram, handle: Handle | None, **extra
) -> dict:
    """Write report.json: what verification found, the layers, and `extra` entries.

    metrics has every stage, an empty one where nothing was measured; the last is "exported" of a file that is not
    integer.
    """
    measured = {} if handle is None else last_measured(handle)
    stages = STAGES if isinstance(report, VerificationReport) else (*STAGES[:-1], EXPORTED)
    metrics = {stage: {} for stage in stages} | dict(report.metrics)
    content = {**report.to_dict(), "metrics": metrics, "layers": layer_rows(program, measured), **extra}
    write_json(directory / "report.json", content)
    return content


def last_measured(handle: Handle) -> dict[str, dict]:
    """Signal to quantization noise, and clipped share of the outputs, by layer.

    Of weights as they are now, of outputs as `handle.measure()` and a forward left them.
    """
    measured: dict[str, dict] = {}
    for name, site in handle.plan.sites.items():
        quantizer, weight = handle.quantizers[name], handle.weight_of(name)
        if weight is not None:
            quantizer.eval()
            ratio = signal_to_quantization_noise(weight.detach(), quantizer(weight.detach()))
            measured.setdefault(site.layer, {})["sqnr_db"] = finite(ratio)
        elif site.role == "activation" and quantizer.measured is not None:
            ratio, clipped = quantizer.measured
            found = {"activation_sqnr_db": finite(ratio), "clip_share": clipped}
            measured.setdefault(site.layer, {}).update(found)
    return measured


def layer_rows(program: IntegerProgram, measured: dict[str, dict]) -> list[dict]:
    """One row for each operation of the program, with what was measured of its layer."""
    return [
        {
            "name": layer.name,
            "kind": layer.kind,
            "weight_bits": layer.weight_bits,
            "activation_bits": layer.activation_bits,
            "weights": layer.weight_count,
            "bytes": layer.bytes,
            **measured.get(layer.name, {}),
        }
        for layer in program.layers
    ]


def write_json(path: Path, content: dict) -> None:
    """Write `content` whole or not at all. Raises `ExportError` where that fails, on a full disk for example."""
    write_whole(path, (json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n").encode())
