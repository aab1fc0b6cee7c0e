"""Run a program's interpreter, its exported files and the fake-quantized network side by side on held-out batches."""

from collections.abc import Callable, Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from qat.errors import ConfigurationError
from qat.inject.outputs import by_place
from qat.integer.interpreter import named_inputs
from qat.integer.program import IntegerProgram
from qat.real.program import RealProgram
from qat.verification import meters
from qat.verification.accumulators import largest_seen
from qat.verification.codes import codes_of, compare
from qat.verification.files import OpenedFile
from qat.verification.networks import NetworksBeside, by_name
from qat.verification.real import verify_real
from qat.verification.real_report import RealReport
from qat.verification.report import FileReport, Mismatch, VerificationReport
from qat.verification.walk import Walk

#: Samples on which accumulators are looked at: it takes as long as running them twice.
ACCUMULATED_SAMPLES = 256

__all__ = ["FileReport", "Mismatch", "RealReport", "VerificationReport", "codes_of", "verify", "verify_files"]


def verify(
    program: IntegerProgram,
    path: str | PathLike,
    batches: Iterable,
    module: Callable | None = None,
    metrics: Mapping[str, Any] | None = None,
    float_module: Callable | None = None,
    runtime: str = "onnxruntime",
    repeats: int = 30,
) -> VerificationReport:
    """Compare the file at `path`, and the fake-quantized `module`, with `program` on every batch.

    batches: inputs (a tensor, a mapping by name, or as many tensors as there are several inputs), with or without
    targets behind them: one entry more, one more key, or (inputs, targets). Targets are whatever the metrics take.
    module, float_module: prepared and float network, called as they are; a torch module must be in eval mode.
    metrics: name -> torchmetrics.Metric of one number, cloned for each backend and updated with (output, target);
    of a network that returns nested structures with a dict of its outputs by name.
    repeats: how many runs the latency is the median of, of one sample; 0 measures none.
    Of a program whose activations are not static the report is a `RealReport` (`qat.verification.real_report`).
    Raises `ConfigurationError` for no batches, for metrics without targets, for a module in train mode or not prepared,
    and `ExportError` for a file that cannot be loaded or is of another program.
    """
    return verify_files(program, {runtime: path}, batches, module, metrics, float_module, repeats)


def verify_files(
    program: IntegerProgram,
    files: Mapping[str, str | PathLike],
    batches: Iterable,
    module: Callable | None = None,
    metrics: Mapping[str, Any] | None = None,
    float_module: Callable | None = None,
    repeats: int = 30,
) -> VerificationReport:
    """`verify` for several files at once. files: the path of each by its runtime; the first is "integer" in metrics.

    Each is compared with the program in the rounding of its runtime.
    """
    if isinstance(program, RealProgram):
        return verify_real(program, files, batches, module, metrics, float_module, repeats)
    if not files:
        raise ConfigurationError("there are no files to verify; export the program first.")
    beside = NetworksBeside(module, float_module, metrics)
    opened = [OpenedFile(program, runtime, Path(path), meters.cloned(metrics or {})) for runtime, path in files.items()]
    fake_quant: Mismatch | None = None
    accumulators: dict[str, int] = {}
    walk = Walk(program, named_inputs, batches, module)
    for batch in walk:
        if batch.before < ACCUMULATED_SAMPLES:
            for name, magnitude in largest_seen(program, batch.tensors, ACCUMULATED_SAMPLES - batch.before).items():
                accumulators[name] = max(accumulators.get(name, 0), magnitude)
        expected = by_name(program, program(batch.tensors))
        for file in opened:
            own = expected if file.program is program else by_name(file.program, file.program(batch.tensors))
            meters.update(file.meters, file.runtime, by_place(file.run(batch.tensors, own)), batch.targets)
        outputs = beside.run(batch.inputs, batch.targets)
        if "fake_quant" in outputs:
            found = compare(program, expected, by_name(program, outputs["fake_quant"]))
            fake_quant = found if fake_quant is None else fake_quant + found
    reports = {file.runtime: file.report(walk.sample, repeats) for file in opened}
    first, first_file = next(iter(reports.values())), opened[0]
    mismatches = {runtime: report.mismatch for runtime, report in reports.items()}
    return VerificationReport(
        samples=walk.samples,
        mismatches=mismatches if fake_quant is None else mismatches | {"fake_quant": fake_quant},
        float_ops=first.float_ops,
        size_bytes={"float": program.float_bytes, "integer": first.bytes, "program": program.bytes},
        latency_ms=first.latency_ms,
        metrics={"integer": first.metrics} | beside.numbers() if metrics else {},
        conditions=first.conditions,
        islands=first.islands,
        island_codes=first.island_codes,
        nonlinear_ms=first_file.nonlinear_ms(walk.sample, repeats),
        files=reports,
        accumulators=accumulators,
    )
