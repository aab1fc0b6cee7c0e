"""Verification of files that are not integer: every node on its own numbers, and what the outputs come to."""

import dataclasses
import io
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qat.batches import split_batch
from qat.emitters import emitter_of, latency
from qat.errors import ConfigurationError
from qat.inject.handle import handle_of
from qat.inject.inputs import input_paths
from qat.inject.outputs import by_place
from qat.real.program import RealProgram
from qat.verification import meters
from qat.verification.networks import by_name, call, check_module
from qat.verification.report import Mismatch

#: Samples on which every node is looked at: it takes as long as running them several times.
CHECKED_SAMPLES = 32


@dataclass(frozen=True)
class RealReport:
    """What `qat.verify` found of a file that is not integer. It never counts as one: `ok` is False.

    way: "dynamic", "weight-only", "fp16" or "fp32". samples: how many were run.
    mismatches: by runtime, of the numbers that are equal in every right file (codes of weights and tokens, sums of
    their products, integers, what is only moved) those that are not, on the first samples.
    wrong: nodes whose result is further from the program's than explained, or that differ where they must not.
    worst: the node that uses most of its bound, its share, and how far from the program it is.
    output_error: largest difference of an output of the file from that of the program, by output, as a share of the
    largest output.
    float_ops: operations that the runtime computes in real numbers. integer_ops: layers whose products are integers.
    size_bytes: "float" (4 bytes for each number), "exported" (the file), "program" (as stored, without its nodes).
    latency_ms, metrics: as of `VerificationReport`, with "exported" for the file. weight_bits: what codes take in the
    file, by their own width.
    """

    way: str
    samples: int
    mismatches: Mapping[str, Mismatch]
    wrong: tuple[str, ...]
    worst: Mapping[str, Any]
    output_error: Mapping[str, float]
    float_ops: tuple[str, ...]
    integer_ops: tuple[str, ...]
    size_bytes: Mapping[str, int]
    latency_ms: Mapping[str, float] = field(default_factory=dict)
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    conditions: Mapping[str, Any] = field(default_factory=dict)
    weight_bits: Mapping[str, int] = field(default_factory=dict)

    #: There are no float islands in a file that is float throughout.
    islands = ()

    @property
    def ok(self) -> bool:
        """Whether the file is integer: never."""
        return False

    @property
    def as_exported(self) -> bool:
        """Whether every node of the file computes what that of the program does, within its bound."""
        return not self.wrong and not any(entry.differing for entry in self.mismatches.values())

    @property
    def mismatch(self) -> Mismatch:
        """The numbers of the file that should be equal."""
        return next(iter(self.mismatches.values()))

    @property
    def files(self) -> dict[str, "RealReport"]:
        """This report by the runtime of its one file."""
        return {runtime: self for runtime in self.mismatches}

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, dicts and numbers, for json."""
        lists = {name: list(getattr(self, name)) for name in ("float_ops", "integer_ops", "wrong")}
        return dataclasses.asdict(self) | lists | {"ok": self.ok, "as_exported": self.as_exported}

    def __str__(self) -> str:
        from rich.console import Console
        from rich.table import Table

        verdict = "as the program" if self.as_exported else "NOT THE PROGRAM"
        table = Table(title=f"verified on {self.samples} samples: {verdict}, NOT INTEGER ({self.way})")
        for column in ("what", "", "value"):
            table.add_column(column, justify="right" if column == "value" else "left")
        for runtime, entry in self.mismatches.items():
            table.add_row("differing", runtime, f"{entry.differing} of {entry.total} codes, sums and integers")
        if self.wrong:
            table.add_row("further off than explained", "", ", ".join(self.wrong))
        if self.worst:
            table.add_row("nearest to its bound", self.worst["name"], f"{100 * self.worst['share']:.1f} % of it")
        for name, share in self.output_error.items():
            table.add_row("difference of outputs", name, f"{100 * share:.4f} % of the largest")
        table.add_row("float ops", "", str(len(self.float_ops)))
        table.add_row("layers that multiply integers", "", str(len(self.integer_ops)))
        for kind, size in self.size_bytes.items():
            table.add_row("bytes", kind, f"{size:,}")
        for kind, milliseconds in self.latency_ms.items():
            table.add_row("latency", kind, f"{milliseconds:.3f} ms")
        for backend, values in self.metrics.items():
            for name, value in values.items():
                table.add_row(name, backend, f"{value:.4f}")
        for bits, width in self.weight_bits.items():
            if int(bits) != width:
                table.add_row("condition", f"{bits}-bit codes", f"{width} bits each in the file")
        for name, condition in self.conditions.items():
            table.add_row("condition", name, str(condition))
        console = Console(file=io.StringIO(), force_jupyter=False, width=100, color_system=None)
        console.print(table)
        return console.file.getvalue()


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
    if not hasattr(emitter, "NodeComparison"):
        raise ConfigurationError(f"{runtime} runs integer files only; verify the file of onnxruntime.")
    networks = {"fake_quant": module, "float": float_module}
    networks = {name: network for name, network in networks.items() if network is not None}
    for name, network in networks.items():
        # a network without a weight grid is prepared, and rounds nothing
        if isinstance(network, torch.nn.Module) and not (name == "fake_quant" and not program.weights):
            check_module(name, network)
    emitter.check_codes(program, path)
    session, compared = emitter.open_session(path), emitter.NodeComparison(program, path)
    metered = {name: meters.cloned(metrics or {}) for name in ("exported", *networks)}
    checks: dict[str, Any] = {}
    largest, errors = {}, {edge.name: 0.0 for edge in program.outputs}
    samples, sample, names = 0, None, _input_names(program, module)
    for batch in batches:
        inputs, targets = split_batch(program, batch, names)
        tensors = _taken(program, names, inputs)
        sample = sample or {name: tensor[:1].contiguous() for name, tensor in tensors.items()}
        if samples < CHECKED_SAMPLES:
            few = {name: tensor[: CHECKED_SAMPLES - samples].contiguous() for name, tensor in tensors.items()}
            for name, found in compared(few).items():
                checks[name] = checks[name] + found if name in checks else found
        samples += len(next(iter(tensors.values())))
        outputs, expected = emitter.run_session(session, tensors), by_name(program, program(tensors))
        for name, wanted in expected.items():
            found = outputs[name].reshape(wanted.shape)
            errors[name] = max(errors[name], float((found.double() - wanted.double()).abs().max()))
            largest[name] = max(largest.get(name, 0.0), float(wanted.double().abs().max()))
        meters.update(metered["exported"], runtime, by_place(_structured(program, outputs)), targets)
        for name, network in networks.items():
            meters.update(metered[name], name, by_place(call(network, inputs)), targets)
    if sample is None:
        raise ConfigurationError("there are no batches to verify on; pass at least one, e.g. the test data loader.")
    worst = max(checks.values(), key=lambda found: found.share, default=None)
    return RealReport(
        way=program.way,
        samples=samples,
        mismatches={runtime: _mismatch(program, checks.values())},
        wrong=tuple(name for name, found in checks.items() if not found.holds),
        worst={} if worst is None else {"name": worst.name, "share": worst.share, "error": worst.error},
        output_error={name: error / largest[name] if largest[name] else error for name, error in errors.items()},
        float_ops=tuple(emitter.float_ops(path)),
        integer_ops=tuple(node.name for node in program.integer_operations),
        size_bytes={"float": program.float_bytes, "exported": os.path.getsize(path), "program": program.bytes},
        latency_ms=_latency(emitter, program, session, sample, repeats) if repeats else {},
        metrics={name: meters.numbers(entries) for name, entries in metered.items()} if metrics else {},
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


def _input_names(program: RealProgram, module: Callable | None) -> list[str]:
    """What batches hold: the inputs of the prepared module, also those that the program has no use for."""
    names = [edge.name for edge in program.inputs]
    handle = handle_of(module) if isinstance(module, torch.nn.Module) else None
    if handle is None:
        return names
    own = [path for path, _ in input_paths(handle.original_forward, *handle.examples)]
    return own if set(names) < set(own) else names


def _taken(program: RealProgram, names: list[str], inputs: Any) -> dict[str, Tensor]:
    if len(names) > len(program.inputs) and not isinstance(inputs, Mapping):
        inputs = dict(zip(names, inputs, strict=True))
    if isinstance(inputs, Mapping):
        inputs = {edge.name: inputs[edge.name] for edge in program.inputs}
    return program.named_inputs(inputs)


def _structured(program: RealProgram, outputs: Mapping[str, Tensor]):
    if program.output_structure == "dict":
        return outputs
    ordered = tuple(outputs[edge.name] for edge in program.outputs)
    return ordered if program.output_structure == "tuple" else ordered[0]
