"""What a real program is made of: inputs, outputs, and nodes that each compute one function of an explicit list."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from qat.errors import ProgramError
from qat.integer.values import check_name
from qat.real.functions import DTYPES, FUNCTIONS, MOVES

#: Sizes of a shape; a text names one that follows the inputs.
Shape = tuple[int | str, ...]
FLOATS = ("float32", "float64", "float16")
#: What a node makes that is a size and no tensor.
SIZE = "size"
#: Functions that have a weight.
WEIGHTED = ("linear", "convolution", "aten.embedding.default")


@dataclass(frozen=True)
class Ref:
    """An argument that is an input, a constant, a weight or what a node makes, by its name."""

    name: str


#: Plain data, a `Ref`, or a tuple of such.
Argument = Any


@dataclass(frozen=True)
class RealInput:
    """An input. dtype: "float32" or "int64". shape: with the batch in front. recorded: the sizes it was recorded with.

    count: of integers, 0..count - 1 are known to be among those it takes, as far as tables tell that are read with it.
    """

    name: str
    dtype: str
    shape: Shape
    recorded: tuple[int, ...]
    count: int = 2

    #: What edges of integer programs may carry; those here are as they come.
    codes = False
    image = None

    def __post_init__(self):
        check_name(self.name, "an input")
        if self.dtype not in ("float32", "int64"):
            raise ProgramError(f"input {self.name!r} is {self.dtype[:20]!r}; inputs are float32 or int64.")

    @property
    def value(self) -> str:
        """The name under which nodes read it."""
        return self.name


@dataclass(frozen=True)
class RealOutput:
    """An output. value: the node that makes it."""

    name: str
    value: str

    codes = False

    def __post_init__(self):
        check_name(self.name, "an output")


@dataclass(frozen=True)
class RealNode:
    """One function. name: of the node and of what it makes. source: path of the module it came from.

    arguments: the function's parameters by name. dtype, shape: of what it makes; a size has dtype "size".
    part: which result, of a function that makes several.
    tokens: dimensions of one token, where a layer reads its input on grids of the moment; () where it reads reals.
    """

    name: str
    source: str
    function: str
    arguments: tuple[tuple[str, Argument], ...]
    dtype: str
    shape: Shape
    part: int | None = None
    tokens: tuple[int, ...] = ()

    def __post_init__(self):
        check_name(self.name, "a node")
        if self.function not in FUNCTIONS:
            raise ProgramError(f"{self.name!r} computes {self.function[:40]!r}, which a real program cannot hold.")
        if self.tokens and self.function not in ("linear", "convolution"):
            raise ProgramError(f"{self.name!r} reads tokens, but is a {self.function}; layers with weights do.")
        if self.dtype != SIZE and self.dtype not in DTYPES:
            raise ProgramError(f"{self.name!r} makes {self.dtype[:20]!r}; choose one of {', '.join(DTYPES)}.")

    @functools.cached_property
    def named(self) -> dict[str, Argument]:
        """The arguments by name."""
        return dict(self.arguments)

    @property
    def reads(self) -> tuple[str, ...]:
        """Names that it refers to."""
        return tuple(_refs(tuple(self.named.values())))

    @property
    def weight(self) -> str | None:
        """Name of the operand that a layer multiplies with."""
        argument = self.named.get("weight") if self.function in WEIGHTED else None
        return argument.name if isinstance(argument, Ref) else None

    @property
    def is_float(self) -> bool:
        """Whether it computes real numbers, and does not only move them or count sizes."""
        return self.dtype in FLOATS and self.function not in MOVES and self.function != "full"


def _refs(argument: Argument) -> Iterator[str]:
    if isinstance(argument, Ref):
        yield argument.name
    elif isinstance(argument, tuple):
        for entry in argument:
            yield from _refs(entry)
