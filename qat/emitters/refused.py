"""What a runtime does not run of a program, and the one sentence that says it: the same problems stand together."""

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from qat.errors import ExportError
from qat.integer.operations import FloatIsland, Operation

#: How many places with the same problem a sentence names.
NAMED = 3


@dataclass(frozen=True)
class Refusal:
    """One thing that a runtime does not run.

    problem, remedy: what is in the way, a clause, and what works, in the imperative; the same for every place that has
    it. detail: what differs from place to place, such as numbers. kind, name: of the operation or value, empty where it
    is the program as a whole. layer: path of the module it came from; line: of the network's code, `file:line`. Either
    is empty where it is not known.
    """

    problem: str
    remedy: str
    detail: str = ""
    kind: str = ""
    name: str = ""
    layer: str = ""
    line: str = ""

    @classmethod
    def of(cls, operation: Operation, problem: str, remedy: str, detail: str = "") -> "Refusal":
        """What is in the way of an operation."""
        return cls(problem, remedy, detail, type(operation).__name__, operation.name, operation.source)

    @classmethod
    def of_island(cls, island: FloatIsland) -> "Refusal":
        """What is in the way of an operation in real numbers, where there are integers alone."""
        remedy = "drop the rule that leaves it in float, or export for onnxruntime"
        return cls.of(
            island, "it is computed in real numbers, and everything else in integers", remedy, island.function
        )

    @classmethod
    def of_value(cls, name: str, problem: str, remedy: str, detail: str = "") -> "Refusal":
        """What is in the way of the codes of a value."""
        return cls(problem, remedy, detail, "value", name)

    def __str__(self) -> str:
        return f"{_clause([self])}."

    @property
    def reason(self) -> tuple[str, str]:
        """What is the same for every place that has it."""
        return self.problem, self.remedy

    @property
    def _place(self) -> str:
        origin = ", ".join(part for part in (self.layer, self.line) if part not in ("", self.name))
        return f"{self.kind} {self.name!r}{f' (from {origin})' if origin else ''}" if self.name else ""


class RefusedError(ExportError):
    """What a runtime does not run of a program. refusals: at least one."""

    def __init__(self, runtime: str, refusals: Iterable[Refusal]):
        self.refusals = tuple(refusals)
        super().__init__(in_one_sentence(runtime, self.refusals))


def in_one_sentence(runtime: str, refusals: Iterable[Refusal]) -> str:
    """The refusals of `runtime`, each problem once, with the first places that have it and how many more there are."""
    return f"{runtime} cannot run this network: {'; '.join(map(_clause, grouped(refusals)))}."


def grouped(refusals: Iterable[Refusal]) -> list[list[Refusal]]:
    """Refusals of the same reason together, in the order of the first, and of these one for each layer."""
    groups: dict[tuple[str, str], dict[str, Refusal]] = {}
    for refusal in refusals:
        groups.setdefault(refusal.reason, {}).setdefault(refusal.layer or refusal.name, refusal)
    return [list(group.values()) for group in groups.values()]


def located(refusals: Iterable[Refusal], line_of: Callable[[str], str]) -> list[Refusal]:
    """The same refusals with the line of the network's code. line_of: a layer's, empty where it is not known."""
    return [dataclasses.replace(refusal, line=line_of(refusal.layer)) for refusal in refusals]


def _clause(group: list[Refusal]) -> str:
    """One problem with its places and its remedy."""
    first = group[0]
    places = [refusal._place for refusal in group[:NAMED]]
    if len(group) > NAMED:
        places.append(f"{len(group) - NAMED} more")
    where = " and ".join(part for part in (", ".join(places[:-1]), places[-1]) if part)
    detail = f" ({first.detail})" if first.detail else ""
    return f"{where}{': ' if where else ''}{first.problem}{detail}; {first.remedy}"
