"""What verification found: of every file, and of the network they all come from."""

import dataclasses
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Mismatch:
    """Output codes of one backend against the interpreter's. max_lsb: largest difference, in codes."""

    differing: int
    total: int
    max_lsb: int

    def __add__(self, other: "Mismatch") -> "Mismatch":
        return Mismatch(self.differing + other.differing, self.total + other.total, max(self.max_lsb, other.max_lsb))


@dataclass(frozen=True)
class FileReport:
    """What was found of one exported file.

    name: of the file. bytes: of it, and of all it needs beside it. mismatch: its output codes against the interpreter's
    with the rounding of its runtime. float_ops, islands, island_codes, latency_ms, metrics, conditions: as in
    `VerificationReport`.
    """

    name: str
    bytes: int
    mismatch: Mismatch
    float_ops: tuple[str, ...]
    islands: tuple[str, ...] = ()
    island_codes: Mismatch | None = None
    latency_ms: Mapping[str, float] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    conditions: Mapping[str, Any] = field(default_factory=dict)

    @property
    def as_exported(self) -> bool:
        """Whether the file is integer and equal to the program but for its islands, if it was exported with any."""
        return not self.mismatch.differing and (not self.float_ops or bool(self.islands))

    @property
    def ok(self) -> bool:
        """Whether the file is integer and equal to the program, code for code."""
        return not self.mismatch.differing and not self.float_ops


@dataclass(frozen=True)
class VerificationReport:
    """What `verify` found.

    samples: how many were run. mismatches: by backend, each runtime and, with a module, "fake_quant".
    float_ops: nodes that the first file's runtime computes in floating point. size_bytes: "float" (4 bytes per weight
    and bias), "integer" (the first file) and "program" (weights at true width, int32 biases).
    latency_ms: medians of one run of the first file in one thread, "integer" and "float", side by side; empty where not
    measured.
    metrics: by backend ("integer": the first file, "fake_quant", "float") and name.
    conditions: what the figures hold for: runtime, processor, session options.
    islands: operations that the file computes in real numbers on purpose, since a rule left them in float or for
    `export(nonlinear="float_island")`; the mismatches of the runtime are then those behind the codes that the islands
    gave, and island_codes theirs.
    nonlinear_ms: medians of one run with softmax, normalization and division as integers ("integer") and in real
    numbers ("float_island"); empty where the program has none of them, or latency is not measured.
    files: every file by its runtime, the first one first.
    accumulators: the largest magnitude in the accumulators of each operation, on the first samples.
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
    files: Mapping[str, FileReport] = field(default_factory=dict)
    accumulators: Mapping[str, int] = field(default_factory=dict)

    @property
    def as_exported(self) -> bool:
        """Whether each file is integer and equal to the program but for its islands, if it was exported with any."""
        others = all(entry.as_exported for entry in self.files.values())
        return others and not self._differing and (not self.float_ops or bool(self.islands))

    @property
    def ok(self) -> bool:
        """Whether each file is integer and equal to the program, code for code.

        The fake-quantized network is not asked: its float sums differ from integers by a few codes per million.
        """
        return all(entry.ok for entry in self.files.values()) and not self._differing and not self.float_ops

    @property
    def _differing(self) -> bool:
        return any(entry.differing for name, entry in self.mismatches.items() if name != "fake_quant")

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, dicts and numbers, for json."""
        lists = {"float_ops": list(self.float_ops), "islands": list(self.islands)}
        return dataclasses.asdict(self) | lists | {"ok": self.ok}

    def table(self) -> "Table":
        """Every file beside the float network: bytes, codes that differ, float operations, metrics and latency."""
        from rich.table import Table

        names = list(dict.fromkeys(name for values in self.metrics.values() for name in values))
        table = Table(title=f"{len(self.files)} files on {self.samples} samples", title_justify="left")
        table.add_column("runtime")
        for column in ("file", "bytes", "differing codes", "largest", "float ops", *names, "ms", "float ms", "ratio"):
            table.add_column(column, justify="left" if column == "file" else "right")
        for runtime, entry in self.files.items():
            found, times = entry.mismatch, entry.latency_ms
            values = [f"{entry.metrics[name]:.4f}" if name in entry.metrics else "" for name in names]
            latency = [f"{times[kind]:.3f}" if kind in times else "-" for kind in ("integer", "float")]
            ratio = f"{times['float'] / times['integer']:.2f} x" if len(times) == 2 else "-"
            table.add_row(
                runtime, entry.name, f"{entry.bytes:,}", f"{found.differing:,} of {found.total:,}", str(found.max_lsb),
                str(len(entry.float_ops)), *values, *latency, ratio,
            )  # fmt: skip
        for stage, label in (("fake_quant", "fake-quantized"), ("float", "float")):
            if stage in self.metrics:
                values = [f"{self.metrics[stage][name]:.4f}" for name in names]
                found = self.mismatches.get(stage)
                codes = ["", ""] if found is None else [f"{found.differing:,} of {found.total:,}", str(found.max_lsb)]
                size = f"{self.size_bytes['float']:,}" if stage == "float" else ""
                table.add_row(label, "", size, *codes, "", *values, "", "", "")
        return table

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
