"""Operations that move codes and compute nothing: shapes, slices, padding, joining."""

import dataclasses
import math

from torch.fx import Node

from qat.integer.program import Concatenate, Pad, Reshape, Slice, Transpose
from qat.lowering.state import Program, Quantized, Unlowerable, batch_shape


def identity(program: Program, node: Node, x, *arguments, **keywords):
    """Dropout in eval mode, contiguous, clone, detach: the operand itself, be it a value or a pending computation."""
    made = node.meta["val"]
    if not made.is_floating_point():
        raise Unlowerable(f"it turns real values into {made.dtype}, cutting them off; keep them real")
    return x


def reshape(program: Program, node: Node, x, *arguments) -> Quantized:
    """view, reshape, flatten, squeeze, unsqueeze: the target shape is the exported graph's."""
    _check_quantized(x)
    shape = batch_shape(node)
    if math.prod(shape) != math.prod(x.shape):
        raise Unlowerable(f"it turns {x.shape} into {shape} and mixes the batch in; keep dimension 0 for the batch")
    return x if shape == x.shape else program.move(node, x, shape, Reshape, shape=shape)


def permute(program: Program, node: Node, x, dims) -> Quantized:
    """aten.permute."""
    _check_quantized(x)
    order = list(range(1, x.rank))
    order.insert(x.batch_at, 0)  # dimensions of the program, as the network has them
    permuted = [order[dim % x.rank] for dim in dims]
    batch_at = permuted.index(0)
    if batch_at and x.merged:
        raise Unlowerable("it moves the batch together with another dimension; keep dimension 0 for the batch")
    inner = [dim + x.merged for dim in permuted if dim != 0]
    permutation = (*range(1 + x.merged), *inner)
    if permutation != tuple(range(len(permutation))):
        shape = tuple(x.shape[dim - 1] for dim in permutation[1:])
        x = program.move(node, x, shape, Transpose, permutation=permutation)
    return dataclasses.replace(x, batch_at=batch_at)


def transpose(program: Program, node: Node, x, first, second) -> Quantized:
    """aten.transpose.int."""
    _check_quantized(x)
    order = list(range(x.rank))
    first, second = first % x.rank, second % x.rank
    order[first], order[second] = second, first
    return permute(program, node, x, order)


def cut(program: Program, node: Node, x, dim=0, start=None, end=None, step=1) -> Quantized:
    """aten.slice.Tensor."""
    _check_quantized(x)
    if dim % x.rank == 0:
        if start not in (None, 0) or step != 1 or (isinstance(end, int) and end < 2**62):
            raise Unlowerable("it cuts the batch; cut the other dimensions only")
        return x
    return _cut(program, node, x, x.dim(dim), start, end, step)


def select(program: Program, node: Node, x, dim, index) -> Quantized:
    """aten.select.int."""
    _check_quantized(x)
    dim = x.dim(dim, "picks one sample of")
    index = index % x.shape[dim - 1]
    piece = _cut(program, node, x, dim, index, index + 1, 1)
    return reshape(program, node, piece)


def split(program: Program, node: Node, x, sizes, dim=0) -> tuple[Quantized, ...]:
    """aten.split.Tensor, aten.split_with_sizes, aten.chunk: pieces along a dimension."""
    _check_quantized(x)
    dim = x.dim(dim, "splits")
    pieces, start = [], 0
    for piece in node.meta["val"]:
        end = start + piece.shape[dim - x.merged]
        pieces.append(_cut(program, node, x, dim, start, end, 1))
        start = end
    return tuple(pieces)


def unbind(program: Program, node: Node, x, dim=0) -> tuple[Quantized, ...]:
    """aten.unbind.int: every position along a dimension."""
    _check_quantized(x)
    dim = x.dim(dim, "takes apart the samples of")
    shape = (*x.shape[: dim - 1], *x.shape[dim:])
    pieces = [_cut(program, node, x, dim, index, index + 1, 1) for index in range(x.shape[dim - 1])]
    return tuple(program.move(node, piece, shape, Reshape, shape=shape) for piece in pieces)


def pad(program: Program, node: Node, x, amounts, mode="constant", value=None) -> Quantized:
    """aten.pad, aten.constant_pad_nd, with zeros. amounts: (before, after) from the last dimension backwards."""
    _check_quantized(x)
    if isinstance(mode, int | float):  # constant_pad_nd has no mode, its third argument is the value
        mode, value = "constant", mode
    if mode != "constant" or value:
        raise Unlowerable(f"padding mode {mode!r} with value {value} has no integer form here; pad with zeros")
    pairs = [tuple(amounts[index : index + 2]) for index in range(0, len(amounts), 2)][::-1]
    if len(pairs) > len(x.shape):
        raise Unlowerable("it pads the batch; pad the other dimensions only")
    if any(min(pair) < 0 for pair in pairs):
        raise Unlowerable(f"it pads by negative amounts {pairs}; cut with a slice instead")
    amounts = ((0, 0),) * (len(x.shape) - len(pairs)) + tuple(pairs)
    return program.move(node, x, batch_shape(node), Pad, amounts=amounts)


def cat(program: Program, node: Node, tensors, dim=0) -> Quantized:
    """aten.cat of values, and constants, that share a grid."""
    values = [x for x in tensors if isinstance(x, Quantized)]
    if not values:
        raise Unlowerable("none of its inputs is on an integer grid")
    dim = values[0].dim(dim, "joins along")
    tensors = [program.operand(x, len(values[0].shape)) for x in tensors]
    return program.join(node, tensors, batch_shape(node), Concatenate, dim=dim)


def stack(program: Program, node: Node, tensors, dim=0) -> Quantized:
    """aten.stack: a new dimension, then joining along it."""
    for x in tensors:
        _check_quantized(x)
    dim = dim % (tensors[0].rank + 1)
    if dim == 0:
        raise Unlowerable("it stacks in front of the batch; stack along the other dimensions only")
    dim += tensors[0].merged
    shape = (*tensors[0].shape[: dim - 1], 1, *tensors[0].shape[dim - 1 :])
    widened = [program.move(node, x, shape, Reshape, shape=shape) for x in tensors]
    return program.join(node, widened, batch_shape(node), Concatenate, dim=dim)


def _cut(program: Program, node: Node, x: Quantized, dim: int, start, end, step: int) -> Quantized:
    size = x.shape[dim - 1]
    start, end, step = slice(start, end, step).indices(size)
    if (start, end, step) == (0, size, 1):
        return x
    starts, ends, steps = [0] * len(x.shape), list(x.shape), [1] * len(x.shape)
    starts[dim - 1], ends[dim - 1], steps[dim - 1] = start, end, step
    shape = tuple(len(range(*bounds)) for bounds in zip(starts, ends, steps, strict=True))
    return program.move(node, x, shape, Slice, starts=tuple(starts), ends=tuple(ends), steps=tuple(steps))


def _check_quantized(x) -> None:
    if not isinstance(x, Quantized):
        raise Unlowerable("its input is not on an integer grid")
