"""Float islands: what a rule leaves in real numbers, between integer operations."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from qat.errors import ProgramError
from qat.integer.float_functions import FLOAT_FUNCTIONS, Argument, FloatFunction
from qat.integer.geometry import Shape
from qat.integer.operations.base import ComputingOperation
from qat.integer.operations.choices import MASK_GRID
from qat.integer.values import Constant, check_dtype, check_shape

#: Sizes of a batch for the look at a result's shape: what follows both is the batch.
_SAMPLES = (3, 7)


@dataclass(frozen=True)
class Whole:
    """An argument that is a whole number."""

    name: str
    whole: int


@dataclass(frozen=True)
class Real:
    """An argument that is a real number."""

    name: str
    real: float


@dataclass(frozen=True)
class Flag:
    """An argument that is true or false."""

    name: str
    flag: bool


@dataclass(frozen=True)
class Text:
    """An argument that is a word."""

    name: str
    text: str


@dataclass(frozen=True)
class Sizes:
    """An argument of several whole numbers."""

    name: str
    sizes: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class FloatWeight:
    """A constant operand: float32 `values`, as the network holds them. name: the operand that they are."""

    name: str
    values: Tensor


_KINDS = {int: Whole, float: Real, bool: Flag, str: Text, tuple: Sizes}


@dataclass(frozen=True, eq=False, kw_only=True)
class FloatIsland(ComputingOperation):
    """A function of real numbers between two grids: the one operation that is no integer arithmetic.

    Its inputs are dequantized, `function` (one of `FLOAT_FUNCTIONS`) is computed of them, rounded to float32, and
    quantized to the output's grid. A program that holds one is not integer: `program.float_operations` lists them.

    operands: which operand of the function each input is. weights: its constant operands, of float32. arguments: its
    other parameters. merged: 1 where the function counts the first dimension of every operand and of its result as
    part of the batch.
    """

    function: str
    operands: tuple[str, ...]
    weights: tuple[FloatWeight, ...]
    arguments: tuple[Whole | Real | Flag | Text | Sizes, ...]
    merged: int = 0

    arity: ClassVar[int | None] = None
    takes_constants: ClassVar[bool] = True

    @staticmethod
    def written(arguments: dict[str, Argument]) -> tuple[Whole | Real | Flag | Text | Sizes, ...]:
        """Arguments by name as the field holds them."""
        return tuple(_KINDS[type(value)](name, value) for name, value in sorted(arguments.items()))

    @property
    def definition(self) -> FloatFunction:
        """What the function is."""
        return FLOAT_FUNCTIONS[self.function]

    @property
    def settings(self) -> dict[str, Argument]:
        """The arguments by name."""
        return {entry.name: getattr(entry, dataclasses.fields(entry)[1].name) for entry in self.arguments}

    @property
    def constants(self) -> dict[str, Tensor]:
        """The constant operands by name."""
        return {weight.name: weight.values for weight in self.weights}

    def check(self):
        if self.function not in FLOAT_FUNCTIONS:
            raise self.error(
                f"computes {self.function[:40]!r}; a float island holds one of {', '.join(FLOAT_FUNCTIONS)}"
            )
        names = [*self.operands, *(weight.name for weight in self.weights)]
        settings = [entry.name for entry in self.arguments]
        if len(self.operands) != len(self.inputs) or len({*names}) < len(names) or len({*settings}) < len(settings):
            raise self.error(f"has {len(self.inputs)} inputs for {names} and {settings}; each is given once")
        if self.merged not in (0, 1):
            raise self.error(f"merges {self.merged} dimensions with the batch; it takes 0 or 1")
        if varying := sorted(self.definition.constants & {*self.operands}):
            raise self.error(f"has a {varying[0]} that depends on the inputs; it is a constant")
        for weight in self.weights:
            check_dtype(weight.values, torch.float32, f"the {weight.name} of {self.name!r}")
            check_shape(tuple(weight.values.shape), f"the {weight.name} of {self.name!r}")
            if not bool(torch.isfinite(weight.values).all()):
                raise self.error(f"has NaN or infinity in its {weight.name}; it takes finite numbers")

    def output_shape(self, *shapes):
        made = {self._shape_of(samples, shapes) for samples in _SAMPLES}
        if len(made) > 1:
            raise self._over_the_batch()
        return made.pop()

    def _shape_of(self, samples: int, shapes: tuple[Shape, ...]) -> Shape:
        """The output's shape, as a batch of so many samples shows it."""
        if self.merged and not all(shapes):
            raise self.error("merges a dimension with the batch that one of its inputs does not have")
        of_inputs = dict(zip(self.operands, (self.seen(shape, samples) for shape in shapes), strict=True))
        ranks = {name: len(shape) for name, shape in of_inputs.items()}
        ranks |= {name: values.dim() for name, values in self.constants.items()}
        if problem := self.definition.problem(ranks, self.settings):
            raise self.error(f"cannot compute {self.function}: {problem}")
        tensors = {name: torch.empty(shape, device="meta") for name, shape in of_inputs.items()}
        tensors |= {name: values.to("meta") for name, values in self.constants.items()}
        try:
            made = tuple(self.definition.compute(tensors, self.settings).shape)
        except Exception as error:  # torch has many kinds of refusal
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
            raise self.error(f"cannot compute {self.function} of {list(map(tuple, shapes))} ({reason})") from error
        factor = shapes[0][0] if self.merged else 1
        if not made or made[0] != samples * factor:
            raise self._over_the_batch()
        return (factor, *made[1:]) if self.merged else made[1:]

    def _over_the_batch(self) -> ProgramError:
        return self.error(f"computes {self.function} over the batch; keep dimension 0 for the batch alone")

    def seen(self, shape: Shape, samples: int = 1) -> Shape:
        """The shape, batch included, in which the function sees an operand of `shape`."""
        return (samples * shape[0], *shape[1:]) if self.merged else (samples, *shape)

    def check_between(self, sources, output):
        for name, source in zip(self.operands, sources, strict=True):
            if name == "mask" and source.grid != MASK_GRID:
                raise self.error(f"has a mask on {source.grid}; a mask has codes 0 and 1 of scale 1")
            if self.merged and (isinstance(source, Constant) or source.shape[:1] != sources[0].shape[:1]):
                raise self.error(f"merges the batch with a {name} of {source.shape[:1]}, not {sources[0].shape[:1]}")

    def reach(self, sources, output):
        return 0  # it accumulates no integers
