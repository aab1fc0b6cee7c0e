"""Constants of the C source: arrays of integers, and what describes a layer, each declared once."""

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass

import numpy
from torch import Tensor

from qat.emitters.c.names import Names
from qat.emitters.c.types import CType

#: A line of the source.
LINE = 118
_INDENT = " " * 4
#: How far apart numbers are of which every one is written.
_FEW = 2**16
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
        numbers = numpy.asarray(values.flatten() if isinstance(values, Tensor) else list(values), numpy.int64)
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


def _rows(numbers: numpy.ndarray) -> str:
    """Numbers in lines, equally many in each.

    Every number is written once, in a cell as wide as the widest. Lines are rows of cells, and at last all that cells
    are too wide is taken out.
    """
    low, high = int(numbers.min()), int(numbers.max())
    if high - low < _FEW:
        written, places = numpy.arange(low, high + 1), numbers - low
    else:
        written, places = numpy.unique(numbers, return_inverse=True)
    cells = numpy.array([f"{number}, " for number in written.tolist()], "S")
    count = (LINE - len(_INDENT)) // cells.itemsize
    lines = numpy.zeros((-(-len(numbers) // count), count), cells.dtype)
    lines.reshape(-1)[: len(numbers)] = cells[places]
    letters = lines.view(numpy.uint8)
    begins = numpy.frombuffer(f"\n{_INDENT}".encode(), numpy.uint8)
    rows = numpy.concatenate([numpy.broadcast_to(begins, (len(letters), len(begins))), letters], axis=1)
    text = rows.tobytes().translate(None, bytes(1)).decode()
    return text.replace(" \n", "\n")[1:-2]


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
