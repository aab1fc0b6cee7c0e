"""Constants of the C source: arrays of integers, and what describes a layer, each declared once."""

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from qat.emitters.c.names import Names
from qat.emitters.c.types import CType

#: A line of the source.
LINE = 118
_INDENT = " " * 4
#: Bytes of a pointer of the processors that this is for.
POINTER_BYTES = 4


@dataclass(frozen=True)
class Pointer:
    """Points to a constant. text: as C has it."""

    text: str


class Constants:
    """Declarations in the order in which they are asked for; equal ones are shared."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._declared: dict[tuple[str, str], str] = {}
        self._texts: list[str] = []
        self.bytes = 0

    def array(self, label: str, ctype: CType, values: Tensor | Iterable[int]) -> Pointer:
        """An array of integers, in the order of the tensor's dimensions."""
        numbers = values.flatten().tolist() if isinstance(values, Tensor) else list(values)
        text = f"[{len(numbers)}] = {{\n{_rows(numbers)}\n}};"
        return Pointer(self._declare(label, ctype.name, text, len(numbers) * ctype.bytes))

    def record(self, label: str, kind: str, fields: dict[str, object], counted: bool = True) -> Pointer:
        """A constant of a struct. fields: integers, arrays of them, pointers to other constants (None: none), structs.

        counted: whether its fields are added to `bytes`.
        """
        lines = [
            textwrap.fill(f".{name} = {_written(value)},", LINE, initial_indent=_INDENT, subsequent_indent=2 * _INDENT)
            for name, value in fields.items()
        ]
        size = sum(map(_size, fields.values())) if counted else 0
        return Pointer("&" + self._declare(label, kind, " = {\n" + "\n".join(lines) + "\n};", size))

    def _declare(self, label: str, kind: str, text: str, size: int) -> str:
        if (kind, text) not in self._declared:
            name = self._names.claim(label)
            self._declared[kind, text] = name
            self._texts.append(f"static const {kind} {name}{text}")
            self.bytes += size
        return self._declared[kind, text]

    @property
    def texts(self) -> tuple[str, ...]:
        """All declarations."""
        return tuple(self._texts)


def _rows(numbers: list[int]) -> str:
    """Numbers in lines, equally many in each."""
    widest = max(map(len, map(str, (min(numbers), max(numbers)))))
    count = (LINE - len(_INDENT)) // (widest + 2)
    pieces = (numbers[start : start + count] for start in range(0, len(numbers), count))
    return ",\n".join(_INDENT + ", ".join(map(str, piece)) for piece in pieces)


def _written(value: object) -> str:
    if isinstance(value, Pointer):
        return value.text
    if isinstance(value, tuple | list):
        return "{" + ", ".join(map(_written, value)) + "}"
    if isinstance(value, dict):
        return "{" + ", ".join(f".{name} = {_written(entry)}" for name, entry in value.items()) + "}"
    return "0" if value is None else str(value)


def _size(value: object) -> int:
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, tuple | list):
        return sum(map(_size, value))
    return POINTER_BYTES
