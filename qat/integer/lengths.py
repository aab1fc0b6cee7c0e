"""Sizes that follow the length of an input: one program for sequences of many lengths.

A `Length` is the size at the length that the network was recorded with, an ordinary integer, that also knows how it
follows. So whatever reads shapes sees a program of that length, and `at_lengths` makes the program of another.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from qat.errors import ProgramError


class Length(int):
    """`(multiple * n + offset) // divisor` of a length n of the inputs that is called `symbol`.

    Its value as an integer is that of the recorded n. Adding and multiplying integers gives a `Length` again; what
    leads out of that form gives a plain integer, which is right for the recorded length only: `IntegerProgram` is
    checked at others as well.
    """

    symbol: str
    multiple: int
    offset: int
    divisor: int
    recorded: int

    def __new__(cls, symbol: str, recorded: int, multiple: int = 1, offset: int = 0, divisor: int = 1) -> "Length":
        """recorded: the n of the integer value."""
        size = super().__new__(cls, (multiple * recorded + offset) // divisor)
        size.symbol, size.recorded = symbol, recorded
        size.multiple, size.offset, size.divisor = multiple, offset, divisor
        return size

    def __getnewargs__(self):
        return self.symbol, self.recorded, self.multiple, self.offset, self.divisor

    def at(self, length: int) -> int:
        """The size where the inputs have this length."""
        return (self.multiple * length + self.offset) // self.divisor

    def __add__(self, other):
        if isinstance(other, Length):
            if self.symbol != other.symbol or self.divisor != 1 or other.divisor != 1:
                return int(self) + int(other)
            return self._changed(multiple=self.multiple + other.multiple, offset=self.offset + other.offset)
        if type(other) is not int:
            return int(self) + other
        return self._changed(offset=self.offset + other * self.divisor)

    __radd__ = __add__

    def __sub__(self, other):
        if isinstance(other, Length) and self._form()[:2] == other._form()[:2] and self.divisor == other.divisor == 1:
            return self.offset - other.offset
        if isinstance(other, Length):
            return int(self) - int(other)
        return self + -other if type(other) is int else int(self) - other

    def __mul__(self, other):
        if type(other) is int and other == 1:
            return self
        if type(other) is not int or self.divisor != 1:
            return int(self) * (int(other) if isinstance(other, Length) else other)
        return self._changed(multiple=self.multiple * other, offset=self.offset * other)

    __rmul__ = __mul__

    def __floordiv__(self, other):
        if type(other) is int and other == 1:
            return self
        if type(other) is not int:
            return int(self) // (int(other) if isinstance(other, Length) else other)
        if self.divisor == 1 and not self.multiple % other and not self.offset % other:
            return self._changed(multiple=self.multiple // other, offset=self.offset // other)
        return self._changed(divisor=self.divisor * other)

    def _changed(self, **parts) -> "int | Length":
        form = {"multiple": self.multiple, "offset": self.offset, "divisor": self.divisor} | parts
        return Length(self.symbol, self.recorded, **form) if form["multiple"] else form["offset"] // form["divisor"]

    def _form(self) -> tuple[str, int, int, int]:
        return self.symbol, self.multiple, self.offset, self.divisor

    def describe(self) -> str:
        """The expression, as a file names a dimension: "length", "2*length+1", "(length+1)//2"."""
        text = self.symbol if self.multiple == 1 else f"{self.multiple}*{self.symbol}"
        text += f"{self.offset:+d}" if self.offset else ""
        return text if self.divisor == 1 else f"({text})//{self.divisor}"


#: Longest inputs that a program may say it takes: twelve seconds of sound at 88 kHz.
MAX_LENGTH = 2**20


@dataclass(frozen=True)
class LengthRange:
    """The lengths that inputs may have. symbol: the name of the length. shortest, longest: both included.

    recorded: the one that the shapes of the program show.
    """

    symbol: str
    shortest: int
    recorded: int
    longest: int

    def __post_init__(self):
        if not isinstance(self.symbol, str) or not self.symbol.isidentifier():
            raise ProgramError(f"a length is called {str(self.symbol)[:40]!r}; use letters, digits and _.")
        if not 1 <= self.shortest <= self.recorded <= self.longest <= MAX_LENGTH:
            raise ProgramError(
                f"{self.symbol!r} is {self.shortest} to {self.longest}, recorded with {self.recorded}; a length is "
                f"1 to {MAX_LENGTH}, and these must ascend."
            )

    def samples(self, longest: int | None = None) -> list[int]:
        """Lengths to check at besides the recorded one: the shortest, one between, the next shorter, and the longest.

        longest: at most that, where a check takes time with the length.
        """
        most = self.longest if longest is None else min(longest, self.longest)
        tried = {self.shortest, (self.shortest + self.recorded) // 2, max(self.recorded - 1, self.shortest), most}
        return sorted(tried - {self.recorded})


def lengths_in(item: Any) -> Iterator[Length]:
    """Every `Length` in tuples, and in the fields of dataclasses."""
    if isinstance(item, Length):
        yield item
    elif isinstance(item, tuple):
        for entry in item:
            yield from lengths_in(entry)
    elif dataclasses.is_dataclass(item):
        for field in dataclasses.fields(item):
            yield from lengths_in(getattr(item, field.name))


def at_lengths(item: Any, lengths: Mapping[str, int]) -> Any:
    """`item` with plain integers for sizes: of tuples, and of the fields of dataclasses.

    lengths: by symbol.
    """
    if isinstance(item, Length):
        return item.at(lengths[item.symbol])
    if isinstance(item, tuple):
        entries = tuple(at_lengths(entry, lengths) for entry in item)
        return item if all(map(_is_same, entries, item)) else entries
    if dataclasses.is_dataclass(item) and not isinstance(item, type):
        changed = {}
        for field in dataclasses.fields(item):
            before = getattr(item, field.name)
            if isinstance(before, Tensor | str | float | bool):
                continue
            after = at_lengths(before, lengths)
            if not _is_same(after, before):
                changed[field.name] = after
        return dataclasses.replace(item, **changed) if changed else item
    return item


def _is_same(after: Any, before: Any) -> bool:
    return after is before
