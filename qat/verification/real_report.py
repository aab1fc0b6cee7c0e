"""What verification of a file that is not integer found."""

import dataclasses
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from qat.verification.report import Mismatch


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
