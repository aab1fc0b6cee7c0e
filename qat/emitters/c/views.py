"""Where codes lie in memory: buffers, strided views of them, and the loops that walk over several views at once.

A transposed, cut, reversed or repeated value is another view of the same codes, so such operations cost nothing: what
reads them walks with the strides of the view. Only what needs codes in a certain order makes a copy.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from qat.emitters.c.types import CType

Shape = tuple[int, ...]


@dataclass(eq=False)
class Buffer:
    """Memory for `count` elements of `ctype`.

    expression: how C calls it, for what the caller of the function gives and for constants; None where it lies in the
    arena, whose plan then says `place`, in bytes.
    """

    ctype: CType
    count: int
    expression: str | None = None
    place: int | None = None

    @property
    def bytes(self) -> int:
        """How many bytes it takes."""
        return self.count * self.ctype.bytes


@dataclass(frozen=True)
class View:
    """Some of the elements of a buffer as a tensor. shape, strides, offset: in elements, without the batch."""

    buffer: Buffer
    shape: Shape
    strides: Shape
    offset: int = 0

    @property
    def ctype(self) -> CType:
        """The type of its elements."""
        return self.buffer.ctype

    def expanded(self, shape: Shape) -> "View":
        """Dimensions of size 1 repeated to `shape`."""
        strides = [
            stride if size == wanted else 0
            for stride, size, wanted in zip(self.strides, self.shape, shape, strict=True)
        ]
        return View(self.buffer, tuple(shape), tuple(strides), self.offset)

    def permuted(self, dims: Sequence[int]) -> "View":
        """Dimensions in another order."""
        pick = [(self.shape[dim], self.strides[dim]) for dim in dims]
        return View(self.buffer, tuple(size for size, _ in pick), tuple(stride for _, stride in pick), self.offset)

    def cut(self, starts: Sequence[int], counts: Sequence[int], steps: Sequence[int]) -> "View":
        """`counts` elements from `starts` on, `steps` apart (which may be negative)."""
        offset = self.offset + sum(start * stride for start, stride in zip(starts, self.strides, strict=True))
        strides = tuple(step * stride for step, stride in zip(steps, self.strides, strict=True))
        return View(self.buffer, tuple(counts), strides, offset)

    def reshaped(self, shape: Shape) -> "View | None":
        """The same elements, in the order of their dimensions, in another shape; None where no strides say that."""
        if any(stride < 0 for stride in self.strides):
            return None
        try:
            seen = torch.empty_strided(self.shape, self.strides, device="meta").view(shape)
        except RuntimeError:
            return None
        return View(self.buffer, tuple(shape), tuple(seen.stride()), self.offset)

    def lies_in(self, order: Sequence[int]) -> bool:
        """Whether its elements lie behind one another, `order` being the dimensions from the slowest to the fastest."""
        wanted = strides_of(self.shape, order)
        return all(size == 1 or own == other for size, own, other in zip(self.shape, self.strides, wanted, strict=True))

    @property
    def order(self) -> Shape | None:
        """Its dimensions from the slowest to the fastest; None where some are repeated or run backwards."""
        if any(size > 1 and stride < 1 for size, stride in zip(self.shape, self.strides, strict=True)):
            return None
        return tuple(sorted(range(len(self.shape)), key=lambda dim: (self.shape[dim] == 1, -self.strides[dim])))


def strides_of(shape: Shape, order: Sequence[int]) -> Shape:
    """Strides of elements that lie behind one another. order: the dimensions from the slowest to the fastest."""
    strides, step = [0] * len(shape), 1
    for dim in reversed(order):
        strides[dim] = step
        step *= shape[dim]
    return tuple(strides)


def plain(rank: int) -> Shape:
    """The order of dimensions in which the last is the fastest."""
    return tuple(range(rank))


def channels_last(rank: int) -> Shape:
    """The order of (C, *spatial) in which channels are the fastest."""
    return (*range(1, rank), 0)


@dataclass(frozen=True)
class Walk:
    """Nested loops over elements of several operands, the last loop the innermost.

    sizes: of the loops. strides: of each operand, for every loop.
    """

    sizes: Shape
    strides: tuple[Shape, ...]


def walk_over(shape: Shape, operands: Sequence[Shape], single: bool = False) -> Walk:
    """The fewest loops over `shape` for operands of these strides, in the order in which the first lies in memory.

    single: with an innermost loop of one element, so that what steps through all but the innermost sees every element.
    """
    dims = [dim for dim, size in enumerate(shape) if size > 1]
    dims.sort(key=lambda dim: -abs(operands[0][dim]))
    sizes: list[int] = []
    strides: list[list[int]] = []
    for dim in dims:
        own = [operand[dim] for operand in operands]
        if sizes and all(outer == inner * shape[dim] for outer, inner in zip(strides[-1], own, strict=True)):
            sizes[-1] *= shape[dim]
            strides[-1] = own
        else:
            sizes.append(shape[dim])
            strides.append(own)
    if single or not sizes:
        sizes.append(1)
        strides.append([0] * len(operands))
    return Walk(tuple(sizes), tuple(zip(*strides, strict=True)))
