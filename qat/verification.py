"""Run a program's interpreter, its exported file and the fake-quantized network side by side on held-out batches."""

import dataclasses
import functools
import io
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from qat.batches import input_names, real_inputs, split_batch, taken_by, with_pictures
from qat.emitters import emitter_of, latency
from qat.errors import ConfigurationError
from qat.inject.handle import handle_of
from qat.inject.outputs import by_place, named_outputs
from qat.integer.interpreter import from_edge, named_inputs
from qat.integer.program import IntegerProgram, Output
from qat.integer.values import AnyGrid, IndexRange


@dataclass(frozen=True)
class Mismatch:
    """Output codes of one backend against the interpreter's. max_lsb: largest difference, in codes."""

    differing: int
    total: int
    max_lsb: int

    def __add__(self, other: "Mismatch") -> "Mismatch":
        return Mismatch(self.differing + other.differing, self.total + other.total, max(self.max_lsb, other.max_lsb))


@dataclass(frozen=True)
class VerificationReport:
    """What `verify` found.

    samples: how many were run. mismatches: by backend, "onnxruntime" and, with a module, "fake_quant".
    float_ops: nodes that the runtime computes in floating point. size_bytes: "float" (4 bytes per weight and bias),
    "integer" (the exported file) and "program" (weights at true width, int32 biases).
    latency_ms: medians of one run in one thread, "integer" and "float", side by side; empty where not measured.
    metrics: by backend ("integer": the exported file, "fake_quant", "float") and name.
    conditions: what the figures hold for: runtime, processor, session options.
    islands: operations that the file computes in real numbers on purpose, since a rule left them in float or for
    `export(nonlinear="float_island")`; the mismatches of the runtime are then those behind the codes that the islands
    gave, and island_codes theirs.
    nonlinear_ms: medians of one run with softmax, normalization and division as integers ("integer") and in real
    numbers ("float_island"); empty where the program has none of them, or latency is not measured.
    """

    samples: int
    mismatches: Mapping[str, Mismatch]
    float_ops: tuple[str, ...]
    size_bytes: Mapping[str, int]
    latency_ms: Mapping[str, float] = field(default_factory=dict)
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    conditions: Mapping[str, Any] = field(default_factory=dict)
    islands: tuple[str, ...] = ()
    island_codes: Mismatch | None = None
    nonlinear_ms: Mapping[str, float] = field(default_factory=dict)

    @property
    def as_exported(self) -> bool:
        """Whether the file is integer and equal to the program but for its islands, if it was exported with any."""
        return not self._differing and (not self.float_ops or bool(self.islands))

    @property
    def ok(self) -> bool:
        """Whether the file is integer and equal to the program, code for code.

        The fake-quantized network is not asked: its float sums differ from integers by a few codes per million.
        """
        return not self._differing and not self.float_ops

    @property
    def _differing(self) -> bool:
        return any(entry.differing for name, entry in self.mismatches.items() if name != "fake_quant")

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, dicts and numbers, for json."""
        lists = {"float_ops": list(self.float_ops), "islands": list(self.islands)}
        return dataclasses.asdict(self) | lists | {"ok": self.ok}

    def __str__(self) -> str:
        from rich.console import Console
        from rich.table import Table

        verdict = "equal and integer" if self.ok else "NOT EQUAL" if self._differing else "NOT INTEGER"
        if self.as_exported and not self.ok:
            count = len(self.islands)
            which = "1 operation is a float island" if count == 1 else f"{count} operations are float islands"
            verdict = f"equal, but {which}"
        table = Table(title=f"verified on {self.samples} samples: {verdict}")
        for column in ("what", "", "value"):
            table.add_column(column, justify="right" if column == "value" else "left")
        for backend, entry in self.mismatches.items():
            share = f"{entry.differing} of {entry.total} codes, at most {entry.max_lsb} LSB"
            table.add_row("differing", backend, share)
        table.add_row("float ops", "", ", ".join(self.float_ops) or "0")
        if self.islands:
            table.add_row("float islands", "", ", ".join(self.islands))
        if self.island_codes is not None:
            found = self.island_codes
            table.add_row(
                "differing", "islands", f"{found.differing} of {found.total} codes, at most {found.max_lsb} LSB"
            )
        for kind, size in self.size_bytes.items():
            table.add_row("bytes", kind, f"{size:,}")
        for kind, milliseconds in self.latency_ms.items():
            table.add_row("latency", kind, f"{milliseconds:.3f} ms")
        for kind, milliseconds in self.nonlinear_ms.items():
            table.add_row("latency", f"softmax, norms: {kind}", f"{milliseconds:.3f} ms")
        for backend, values in self.metrics.items():
            for name, value in values.items():
                table.add_row(name, backend, f"{value:.4f}")
        for name, condition in self.conditions.items():
            table.add_row("condition", name, str(condition))
        console = Console(file=io.StringIO(), force_jupyter=False, width=100, color_system=None)
        console.print(table)
        return console.file.getvalue()


def codes_of(output: Tensor, grid: AnyGrid) -> Tensor:
    """The codes that a real output stands for: round(output / scale) + zero_point, int64, not clamped.

    Indices stand for themselves.
    """
    if isinstance(grid, IndexRange):
        return output.detach().to("cpu", torch.int64)
    steps = torch.round(output.detach().to("cpu", torch.float32) / torch.tensor(grid.scale, dtype=torch.float32))
    return steps.to(torch.int64) + grid.zero_point


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
    Raises `ConfigurationError` for no batches, for metrics without targets, for a module in train mode or not prepared,
    and `ExportError` for a file that cannot be loaded or is of another program.
    """
    emitter = emitter_of(runtime)
    backends = {"integer": None, "fake_quant": module, "float": float_module}
    backends = {name: backend for name, backend in backends.items() if name == "integer" or backend is not None}
    for name, backend in backends.items():
        if isinstance(backend, torch.nn.Module):
            _check_module(name, backend)
    session = emitter.open_session(path)
    emitter.check_edges(session, program, path)
    backends["integer"] = functools.partial(_run_file, emitter, session, program)
    meters = {name: _cloned(metrics or {}) for name in backends}
    mismatches: dict[str, Mismatch] = {}
    floats, islands = tuple(emitter.float_ops(path)), emitter.islands_in(program, path)
    behind_islands, island_codes = emitter.IslandComparison(program, path) if islands else None, None
    samples, sample, names = 0, None, input_names(program, module)
    for batch in batches:
        inputs, targets = split_batch(program, batch, names)
        tensors = named_inputs(program, with_pictures(program, taken_by(program, names, inputs)))
        sample = sample or {name: tensor[:1].contiguous() for name, tensor in tensors.items()}
        samples += len(next(iter(tensors.values())))
        expected = _by_name(program, program(tensors))
        for name, backend in backends.items():
            output = backend(tensors) if name == "integer" else _call(backend, real_inputs(program, inputs))
            if name != "float":
                label, wanted = name, expected
                if name == "integer":
                    label = runtime
                    if behind_islands is not None:
                        codes, wanted = behind_islands(tensors)
                        found = Mismatch(codes.differing, codes.total, codes.largest)
                        island_codes = found if island_codes is None else island_codes + found
                found = _compare(program, wanted, _by_name(program, output))
                mismatches[label] = mismatches[label] + found if label in mismatches else found
            _update(meters[name], name, by_place(output), targets)
    if sample is None:
        raise ConfigurationError("there are no batches to verify on; pass at least one, e.g. the test data loader.")
    samples_of_both = {"integer": sample, "float": real_inputs(program, sample)}
    return VerificationReport(
        samples=samples,
        mismatches=mismatches,
        float_ops=floats,
        size_bytes={"float": program.float_bytes, "integer": os.path.getsize(path), "program": program.bytes},
        latency_ms=latency.beside_float(emitter, program, session, samples_of_both, repeats) if repeats else {},
        metrics={
            name: {key: _number(key, metric) for key, metric in entries.items()} for name, entries in meters.items()
        }
        if metrics
        else {},
        conditions=emitter.session_conditions() | {"latency": "batch of 1, one thread, float and integer in turn"},
        islands=islands,
        island_codes=island_codes,
        nonlinear_ms=latency.of_nonlinear(emitter, program, sample, repeats) if repeats else {},
    )


def _check_module(name: str, module: torch.nn.Module) -> None:
    training = [path for path, part in module.named_modules() if part.training]
    if training:
        part = f"{training[0]!r} of the {name} module" if training[0] else f"the {name} module"
        raise ConfigurationError(f"{part} is in train mode; call module.eval() before verifying.")
    if name == "fake_quant" and all(handle_of(part) is None for part in module.modules()):
        raise ConfigurationError(
            f"the module is a {type(module).__name__} that is not prepared; "
            "pass the prepared network, and a float one as float_module=."
        )


def _cloned(metrics: Any) -> dict[str, Any]:
    """A fresh copy of every metric, by name."""
    metered = hasattr(metrics, "items") and all(hasattr(metric, "clone") for _, metric in metrics.items())
    if not metered:
        raise ConfigurationError(
            f"metrics are a {type(metrics).__name__}; give torchmetrics by name, e.g. {{'accuracy': Accuracy(...)}}."
        )
    return {key: metric.clone() for key, metric in metrics.items()}


def _number(name: str, metric: Any) -> float:
    value = metric.compute()
    if isinstance(value, Mapping) or torch.as_tensor(value).numel() != 1:
        raise ConfigurationError(f"metric {name!r} does not give one number; choose its average, or leave it out.")
    return float(value)


def _run_file(emitter, session, program: IntegerProgram, tensors: Mapping[str, Tensor]):
    """Outputs of the exported file, in the program's output structure."""
    outputs = emitter.run_session(session, tensors)
    if program.output_structure == "dict":
        return outputs
    ordered = tuple(outputs[edge.name] for edge in program.outputs)
    return ordered if program.output_structure == "tuple" else ordered[0]


def _call(module: Callable, inputs: Any):
    """Call a network on inputs as a loader gives them, on the device where it lies."""
    parameter = next(module.parameters(), None) if isinstance(module, torch.nn.Module) else None

    def move(tensor: Tensor) -> Tensor:
        if parameter is None:
            return tensor
        return tensor.to(parameter.device, parameter.dtype if tensor.is_floating_point() else tensor.dtype)

    with torch.no_grad():
        if isinstance(inputs, Mapping):
            return module(**{name: move(tensor) for name, tensor in inputs.items()})
        if isinstance(inputs, Tensor):
            return module(move(inputs))
        return module(*map(move, inputs))


def _by_name(program: IntegerProgram, output: Any) -> dict[str, Tensor]:
    """A network's result by output name."""
    names = [edge.name for edge in program.outputs]
    if dataclasses.is_dataclass(output):
        output = vars(output)
    structure, leaves = named_outputs(dict(output) if isinstance(output, Mapping) else output)
    named = {name: leaf for name, leaf in leaves if leaf is not None}
    if structure == "dict":
        if missing := set(names) - set(named):
            raise ConfigurationError(
                f"the network returns {', '.join(named)}, without {min(missing)}; they must agree."
            )
        return {name: named[name] for name in names}
    if len(named) != len(names):
        raise ConfigurationError(
            f"the network returns {len(named)} tensors, the program {len(names)}; they must agree."
        )
    return dict(zip(names, named.values(), strict=True))


def _compare(program: IntegerProgram, expected: Mapping[str, Tensor], actual: Mapping[str, Tensor]) -> Mismatch:
    found = Mismatch(0, 0, 0)
    for edge in program.outputs:
        grid = program.value(edge.value).grid
        codes = [_codes_at(edge, output[edge.name], grid) for output in (expected, actual)]
        distance = (codes[0] - codes[1]).abs()
        found += Mismatch(int(distance.count_nonzero()), distance.numel(), int(distance.max()))
    return found


def _codes_at(edge: Output, output: Tensor, grid: AnyGrid) -> Tensor:
    """The codes of an output, int64; a network gives real numbers also where the program's edge carries codes."""
    if edge.codes and not output.is_floating_point():
        return from_edge(output, grid, edge.codes).to(torch.int64)
    return codes_of(output, grid)


def _update(meters: Mapping[str, Any], backend: str, output: Any, targets: Any) -> None:
    if meters and targets is None:
        raise ConfigurationError("metrics need targets; give batches as (inputs, targets).")
    for name, metric in meters.items():
        try:
            metric.to("cpu").update(tree_map_only(Tensor, Tensor.cpu, output), targets)
        except Exception as error:
            raise ConfigurationError(
                f"metric {name!r} cannot be updated with the {backend} output and the targets ({error}); give a metric "
                "that takes what the network returns."
            ) from error
