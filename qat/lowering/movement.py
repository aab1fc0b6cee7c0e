"""Operations that move codes and compute nothing: shapes, slices, padding, joining."""

import dataclasses
import math

from torch.fx import Node

from qat.integer.program import Concatenate, Reshape, Slice, Transpose
from qat.lowering.state import (
    Program,
    Quantized,
    Unlowerable,
    batch_position,
    batch_shape,
    check_quantized,
    known_sizes,
    merged_dims,
)


def identity(program: Program, node: Node, x, *arguments, **keywords):
    """Dropout in eval mode, contiguous, clone, detach: the operand itself, be it a value or a pending computation."""
    made = node.meta["val"]
    if not made.is_floating_point():
        raise Unlowerable(f"it turns real values into {made.dtype}, cutting them off; keep them real")
    return x


def reshape(program: Program, node: Node, x, *arguments) -> Quantized:
    """view, reshape, flatten, squeeze, unsqueeze: the target shape is the exported graph's."""
    check_quantized(x)
    batch_at = batch_position(node, node.meta["val"])
    shape = batch_shape(node, batch_at=batch_at)
    fits = math.prod(shape) == math.prod(x.shape)
    if batch_at or x.batch_at:  # what is merged with the batch, and what stands before both, stays
        merged = merged_dims(node, node.meta["val"])
        fits = fits and shape[:merged] == x.shape[: x.merged]
        fits = fits and math.prod(shape[merged : merged + batch_at]) == math.prod(x.shape[x.merged :][: x.batch_at])
    if not fits:
        raise Unlowerable(f"it turns {x.shape} into {shape} and mixes the batch in; keep dimension 0 for the batch")
    return x if shape == x.shape else program.move(node, x, shape, Reshape, shape=shape)


def permute(program: Program, node: Node, x, dims) -> Quantized:
    """aten.permute."""
    check_quantized(x)
    order = list(range(1, x.rank))
    order.insert(x.batch_at, 0)  # dimensions of the program, as the network has them
    permuted = [order[dim % x.rank] for dim in dims]
    batch_at = permuted.index(0)
    inner = [dim + x.merged for dim in permuted if dim != 0]
    permutation = (*range(1 + x.merged), *inner)
    if permutation != tuple(range(len(permutation))):
        shape = tuple(x.shape[dim - 1] for dim in permutation[1:])
        x = program.move(node, x, shape, Transpose, permutation=permutation)
    return dataclasses.replace(x, batch_at=batch_at)


def transpose(program: Program, node: Node, x, first, second) -> Quantized:
    """aten.transpose.int."""
    check_quantized(x)
    order = list(range(x.rank))
    first, second = first % x.rank, second % x.rank
    order[first], order[second] = second, first
    return permute(program, node, x, order)


def cut(program: Program, node: Node, x, dim=0, start=None, end=None, step=1) -> Quantized:
    """aten.slice.Tensor."""
    check_quantized(x)
    if dim % x.rank == x.batch_at:
        if start not in (None, 0) or step != 1 or (isinstance(end, int) and end < 2**62):
            raise Unlowerable("it cuts the batch; cut the other dimensions only")
        return x
    return _cut(program, node, x, x.dim(dim), start, end, step)


def narrow(program: Program, node: Node, x, dim, start, length) -> Quantized:
    """aten.narrow."""
    check_quantized(x)
    return cut(program, node, x, dim, start, start + length)


def movedim(program: Program, node: Node, x, source, destination) -> Quantized:
    """aten.movedim."""
    check_quantized(x)
    pairs = [(source,), (destination,)] if isinstance(source, int) else [source, destination]
    sources, destinations = ([dim % x.rank for dim in dims] for dims in pairs)
    order = [dim for dim in range(x.rank) if dim not in sources]
    for place, dim in sorted(zip(destinations, sources, strict=True)):
        order.insert(place, dim)
    return permute(program, node, x, order)


def select(program: Program, node: Node, x, dim, index) -> Quantized:
    """aten.select.int."""
    check_quantized(x)
    dim = x.dim(dim, "picks one sample of")
    index = index if index >= 0 else x.shape[dim - 1] + index
    shape = (*x.shape[: dim - 1], *x.shape[dim:])
    return program.move(node, _cut(program, node, x, dim, index, index + 1, 1), shape, Reshape, shape=shape)


def split(program: Program, node: Node, x, sizes, dim=0) -> tuple[Quantized, ...]:
    """aten.split.Tensor, aten.split_with_sizes, aten.chunk: pieces along a dimension."""
    check_quantized(x)
    own = x.dim(dim, "splits")
    pieces, start = [], 0
    for piece in node.meta["val"]:
        end = start + known_sizes(node, piece.shape)[dim]
        pieces.append(_cut(program, node, x, own, start, end, 1))
        start = end
    return tuple(pieces)


def unbind(program: Program, node: Node, x, dim=0) -> tuple[Quantized, ...]:
    """aten.unbind.int: every position along a dimension."""
    check_quantized(x)
    dim = x.dim(dim, "takes apart the samples of")
    shape = (*x.shape[: dim - 1], *x.shape[dim:])
    pieces = [_cut(program, node, x, dim, index, index + 1, 1) for index in range(x.shape[dim - 1])]
    return tuple(program.move(node, piece, shape, Reshape, shape=shape) for piece in pieces)


def cat(program: Program, node: Node, tensors, dim=0) -> Quantized:
    """aten.cat of values, and constants, that share a grid."""
    values = [x for x in tensors if isinstance(x, Quantized)]
    if not values:
        raise Unlowerable("none of its inputs is on an integer grid")
    batch_at = _common_layout(values)
    dim = values[0].dim(dim, "joins along")
    tensors = [program.operand(x, len(values[0].shape)) for x in tensors]
    return program.join(node, tensors, batch_shape(node, batch_at=batch_at), Concatenate, dim=dim)


def stack(program: Program, node: Node, tensors, dim=0) -> Quantized:
    """aten.stack: a new dimension, then joining along it."""
    for x in tensors:
        check_quantized(x)
    batch_at = _common_layout(tensors)
    (first, *_) = tensors
    dim = dim % (first.rank + 1)
    if dim == 0 and first.merged:
        raise Unlowerable("it stacks in front of the batch and what is merged into it; stack along another dimension")
    axis = dim + first.merged - (dim > batch_at)  # in front of the batch there is none to count
    shape = (*first.shape[:axis], 1, *first.shape[axis:])
    widened = [program.move(node, x, shape, Reshape, shape=shape) for x in tensors]
    joined = (*first.shape[:axis], len(tensors), *first.shape[axis:])
    return program.join(node, widened, joined, Concatenate, dim=axis + 1)


def _cut(program: Program, node: Node, x: Quantized, dim: int, start, end, step: int) -> Quantized:
    size = x.shape[dim - 1]
    start, end = _place(0 if start is None else start, size), _place(size if end is None else end, size)
    if (start, step) == (0, 1) and (end is size or end == size):
        return x
    starts, ends, steps = [0] * len(x.shape), list(x.shape), [1] * len(x.shape)
    starts[dim - 1], ends[dim - 1], steps[dim - 1] = start, max(end, start), step
    left = (max(end - start, 0) + step - 1) // step
    shape = (*x.shape[: dim - 1], left, *x.shape[dim:])
    return program.move(node, x, shape, Slice, starts=tuple(starts), ends=tuple(ends), steps=tuple(steps))


def _place(index: int, size: int) -> int:
    """An end of a slice, counted from the front, inside a dimension of `size`."""
    index = index if index >= 0 else size + index
    return size if index >= size else max(index, 0)


def _common_layout(values) -> int:
    """Where values have the batch; refuses those that have it in different places."""
    places = {x.batch_at for x in values}
    if len(places) > 1:
        raise Unlowerable(f"its inputs have the batch in dimensions {sorted(places)}; transpose some of them first")
    return places.pop()
