"""Codes in another place or another shape."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from qat.integer.operations.base import MovingOperation
from qat.integer.values import check_dtype


@dataclass(frozen=True, eq=False, kw_only=True)
class Concatenate(MovingOperation):
    """Inputs one after another along `dim`; all on one grid. Constants are the same in every sample of the batch."""

    dim: int
    arity: ClassVar[int | None] = None
    takes_constants: ClassVar[bool] = True

    def output_shape(self, *shapes):
        if not 1 <= self.dim <= len(shapes[0]):
            raise self.error(f"joins dimension {self.dim} of inputs of {shapes[0]}; the batch is dimension 0")
        axis = self.dim - 1
        rests = {(*shape[:axis], *shape[axis + 1 :]) for shape in shapes}
        if len(rests) > 1 or len({len(shape) for shape in shapes}) > 1:
            raise self.error(f"cannot join inputs of {', '.join(map(str, shapes))} along dimension {self.dim}")
        return (*shapes[0][:axis], sum(shape[axis] for shape in shapes), *shapes[0][axis + 1 :])


@dataclass(frozen=True, eq=False, kw_only=True)
class Reshape(MovingOperation):
    """The same codes in another `shape`, without the batch."""

    shape: tuple[int, ...]
    follows_length: ClassVar[tuple[str, ...]] = ("shape",)

    def output_shape(self, *shapes):
        if math.prod(shapes[0]) != math.prod(self.shape):
            raise self.error(f"cannot turn {shapes[0]} into {self.shape}")
        return self.shape


@dataclass(frozen=True, eq=False, kw_only=True)
class Transpose(MovingOperation):
    """Dimensions in another order. permutation: all of them, beginning with the batch's 0."""

    permutation: tuple[int, ...]

    def check(self):
        if (
            sorted(self.permutation) != list(range(len(self.permutation)))
            or not self.permutation
            or self.permutation[0]
        ):
            raise self.error(f"has permutation {self.permutation}; it must hold every dimension once and begin with 0")

    def output_shape(self, *shapes):
        if len(self.permutation) != len(shapes[0]) + 1:
            raise self.error(f"has permutation {self.permutation} for an input of {shapes[0]} and the batch")
        return tuple(shapes[0][dim - 1] for dim in self.permutation[1:])


@dataclass(frozen=True, eq=False, kw_only=True)
class Slice(MovingOperation):
    """Codes starts, starts + steps, ... below ends; one entry per dimension after the batch, none negative."""

    starts: tuple[int, ...]
    ends: tuple[int, ...]
    steps: tuple[int, ...]
    follows_length: ClassVar[tuple[str, ...]] = ("starts", "ends")

    def output_shape(self, *shapes):
        if not len(self.starts) == len(self.ends) == len(self.steps) == len(shapes[0]):
            raise self.error(f"needs a start, an end and a step for each dimension of {shapes[0]}")
        for start, end, step, size in zip(self.starts, self.ends, self.steps, shapes[0], strict=True):
            if step < 1 or not 0 <= start < end <= size:
                raise self.error(f"cuts {start}:{end}:{step} out of {size}; it must lie inside and go upwards")
        return tuple(len(range(*cut)) for cut in zip(self.starts, self.ends, self.steps, strict=True))


@dataclass(frozen=True, eq=False, kw_only=True)
class Pad(MovingOperation):
    """Real zeros, that is codes zero_point, around the input. amounts: (before, after) per dimension but the batch."""

    amounts: tuple[tuple[int, int], ...]

    def output_shape(self, *shapes):
        if len(self.amounts) != len(shapes[0]) or any(min(pair) < 0 for pair in self.amounts):
            raise self.error(
                f"has amounts {self.amounts} for an input of {shapes[0]}; one pair, not negative, per dimension"
            )
        return tuple(size + before + after for size, (before, after) in zip(shapes[0], self.amounts, strict=True))


@dataclass(frozen=True, eq=False, kw_only=True)
class Take(MovingOperation):
    """Entries `indices` of dimension `dim`, in that order: rolls, flips, repeats, gathers. indices: int64 (n,)."""

    dim: int
    indices: Tensor

    def check(self):
        check_dtype(self.indices, torch.int64, f"the indices of {self.name!r}")
        if self.indices.dim() != 1 or not self.indices.numel():
            raise self.error(f"has indices of shape {tuple(self.indices.shape)}; they are (n,), at least one")

    def output_shape(self, *shapes):
        if not 1 <= self.dim <= len(shapes[0]):
            raise self.error(f"takes from dimension {self.dim} of an input of {shapes[0]}; the batch is dimension 0")
        axis = self.dim - 1
        size = shapes[0][axis]
        lowest, highest = int(self.indices.min()), int(self.indices.max())
        if lowest < 0 or highest >= size:
            raise self.error(f"takes {lowest}..{highest} of the {size} entries of dimension {self.dim}")
        return (*shapes[0][:axis], len(self.indices), *shapes[0][axis + 1 :])


@dataclass(frozen=True, eq=False, kw_only=True)
class Expand(MovingOperation):
    """Dimensions of size 1 repeated to those of `shape`, without the batch."""

    shape: tuple[int, ...]
    follows_length: ClassVar[tuple[str, ...]] = ("shape",)

    def output_shape(self, *shapes):
        source = shapes[0]
        if len(source) != len(self.shape) or any(
            size not in (1, wanted) for size, wanted in zip(source, self.shape, strict=True)
        ):
            raise self.error(f"cannot expand {source} to {self.shape}; only dimensions of size 1 are repeated")
        return self.shape
