"""What verification found: of every file, and of the network they all come from."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


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

    name: of the file. bytes: as of `qat.emitters.stored_bytes`. mismatch: its output codes against the interpreter's
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

    @property
    def verdict(self) -> str:
        """In words, whether all files are integer and equal to the program."""
        if self.ok:
            return "equal and integer"
        if not self.as_exported:
            return "NOT EQUAL" if self._differing else "NOT INTEGER"
        count = len(self.islands)
        which = "1 operation is a float island" if count == 1 else f"{count} operations are float islands"
        return f"equal, but {which}"

    def __str__(self) -> str:
        from qat.verification.table import printed

        return printed(self)
