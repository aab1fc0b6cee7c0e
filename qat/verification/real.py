"""Verification of files that are not integer: every node on its own numbers, and what the outputs come to."""

import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from torch import Tensor

from qat.emitters import RUNTIMES, emitter_of, latency
from qat.errors import ConfigurationError
from qat.inject.outputs import by_place
from qat.integer.calls import structured
from qat.real.program import RealProgram
from qat.verification import meters
from qat.verification.networks import NetworksBeside, by_name
from qat.verification.real_report import RealReport
from qat.verification.report import Mismatch
from qat.verification.walk import Walk

#: Samples on which every node is looked at: it takes as long as running them several times.
CHECKED_SAMPLES = 32


def verify_real(
    program: RealProgram,
    files: Mapping[str, str | PathLike],
    batches: Iterable,
    module: Callable | None = None,
    metrics: Mapping[str, Any] | None = None,
    float_module: Callable | None = None,
    repeats: int = 30,
) -> RealReport:
    """`qat.verify` for a file of real numbers; the parameters are the same.

    Raises `ExportError` for a file whose weights are, bit for bit, not those of the program.
    """
    if len(files) != 1:
        raise ConfigurationError(f"{len(files)} files are given; a real program has one, for onnxruntime.")
    ((runtime, path),) = files.items()
    emitter = emitter_of(runtime)
    if not RUNTIMES[runtime].real_programs:
        raise ConfigurationError(f"{runtime} runs integer files only; verify the file of onnxruntime.")
    # a network without a weight grid is prepared, and rounds nothing
    beside = NetworksBeside(module, float_module, metrics, unchecked=() if program.weights else ("fake_quant",))
    emitter.check_codes(program, path)
    session, compared = emitter.open_session(path), emitter.NodeComparison(program, path)
    exported = meters.cloned(metrics or {})
    checks: dict[str, Any] = {}
    largest, errors = {}, {edge.name: 0.0 for edge in program.outputs}
    walk = Walk(program, RealProgram.named_inputs, batches, module)
    for batch in walk:
        if batch.before < CHECKED_SAMPLES:
            for name, found in compared(batch.first(CHECKED_SAMPLES - batch.before)).items():
                checks[name] = checks[name] + found if name in checks else found
        outputs, expected = emitter.run_session(session, batch.tensors), by_name(program, program(batch.tensors))
        for name, wanted in expected.items():
            found = outputs[name].reshape(wanted.shape)
            errors[name] = max(errors[name], float((found.double() - wanted.double()).abs().max()))
            largest[name] = max(largest.get(name, 0.0), float(wanted.double().abs().max()))
        meters.update(exported, runtime, by_place(structured(program, outputs)), batch.targets)
        beside.run(batch.inputs, batch.targets)
    worst = max(checks.values(), key=lambda found: found.share, default=None)
    return RealReport(
        way=program.way,
        samples=walk.samples,
        mismatches={runtime: _mismatch(program, checks.values())},
        wrong=tuple(name for name, found in checks.items() if not found.holds),
        worst={} if worst is None else {"name": worst.name, "share": worst.share, "error": worst.error},
        output_error={name: error / largest[name] if largest[name] else error for name, error in errors.items()},
        float_ops=tuple(emitter.float_ops(path)),
        integer_ops=tuple(node.name for node in program.integer_operations),
        size_bytes={"float": program.float_bytes, "exported": os.path.getsize(path), "program": program.bytes},
        latency_ms=_latency(emitter, program, session, walk.sample, repeats) if repeats else {},
        metrics={"exported": meters.numbers(exported)} | beside.numbers() if metrics else {},
        conditions=emitter.session_conditions()
        | ({"latency": "batch of 1, one thread, float and exported in turn"} if repeats else {}),
        weight_bits=emitter.container_bits(program),
    )


def _mismatch(program: RealProgram, checks: Iterable) -> Mismatch:
    """Numbers that should be equal, those of the weights with them, which were read back from the file before."""
    found = list(checks)
    weights = sum(weight.count for weight in program.weights.values())
    return Mismatch(sum(each.differing for each in found), sum(each.total for each in found) + weights, 0)


def _latency(emitter, program: RealProgram, session, sample: Mapping[str, Tensor], repeats: int) -> dict[str, float]:
    """Median milliseconds of the file, and of the same network in float32."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "float.onnx"
        path.write_bytes(emitter.build_real(program.in_float32()))
        sessions = {"exported": session, "float": emitter.open_session(path)}
    return latency.median_times(emitter, sessions, dict.fromkeys(sessions, sample), repeats)
