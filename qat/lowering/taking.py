"""Operations that choose entries along dimensions: rolls, flips, repeats, selections, nearest neighbours, padding."""

import math

import torch
from torch import Tensor
from torch.fx import Node

from qat.inject.resampling import Interpolation
from qat.integer.program import Expand, Pad, Reshape, Slice, Take
from qat.lowering import picked
from qat.lowering.indices import as_function, is_discrete
from qat.lowering.state import Program, Quantized, Unlowerable, batch_shape, check_quantized

aten = torch.ops.aten


def take(program: Program, node: Node, x: Quantized, dim: int, indices) -> Quantized:
    """Entries `indices` of dimension `dim` of the program; nothing where those are all entries in order."""
    indices = torch.as_tensor(indices, dtype=torch.int64)
    size = x.shape[dim - 1]
    if indices.tolist() == list(range(size)):
        return x
    shape = (*x.shape[: dim - 1], len(indices), *x.shape[dim:])
    return program.move(node, x, shape, Take, dim=dim, indices=indices)


def roll(program: Program, node: Node, x, shifts, dims=()) -> Quantized:
    """aten.roll along dimensions."""
    check_quantized(x)
    if not dims:
        raise Unlowerable("it rolls the flattened tensor, the batch with it; name the dimensions")
    for shift, dim in zip(shifts, dims, strict=True):
        dim = x.dim(dim, "rolls")
        x = take(program, node, x, dim, torch.arange(x.shape[dim - 1]).roll(shift))
    return x


def flip(program: Program, node: Node, x, dims) -> Quantized:
    """aten.flip."""
    check_quantized(x)
    for dim in (x.dim(dim, "flips") for dim in dims):
        x = take(program, node, x, dim, torch.arange(x.shape[dim - 1]).flip(0))
    return x


def repeat(program: Program, node: Node, x, counts) -> Quantized:
    """aten.repeat, aten.tile: the whole of a dimension several times."""
    check_quantized(x)
    counts = [1] * (x.rank - len(counts)) + list(counts)
    if x.merged or len(counts) != x.rank or counts[0] != 1:
        raise Unlowerable("it repeats the batch, or adds a dimension in front of it; expand the other dimensions only")
    for dim, count in enumerate(counts[1:], start=1):
        if count != 1:
            x = take(program, node, x, dim, torch.arange(x.shape[dim - 1]).repeat(count))
    return x


def repeat_interleave(program: Program, node: Node, x, repeats, dim=None, output_size=None) -> Quantized:
    """aten.repeat_interleave: every entry several times in a row."""
    check_quantized(x)
    if dim is None:
        raise Unlowerable("it repeats the flattened tensor, the batch with it; name the dimension")
    dim = x.dim(dim, "repeats the samples of")
    return take(program, node, x, dim, torch.arange(x.shape[dim - 1]).repeat_interleave(_constant(repeats)))


def index_select(program: Program, node: Node, x, dim, indices) -> Quantized:
    """aten.index_select with constant indices."""
    check_quantized(x)
    return take(program, node, x, x.dim(dim, "picks samples of"), _constant(indices))


def gather(program: Program, node: Node, x, dim, indices, sparse_grad=False) -> Quantized:
    """aten.gather: with constant indices, entries of the flattened dimensions."""
    if is_discrete(indices):
        return picked.gather(program, node, x, dim, as_function(indices))
    check_quantized(x)
    indices = _constant(indices)
    if x.merged:
        raise Unlowerable("it gathers from a value whose batch is merged with another dimension; reshape it first")
    dim = x.dim(dim, "picks samples of")
    if indices.shape[0] != 1 and not bool((indices == indices[:1]).all()):
        raise Unlowerable("its indices differ within the batch; choose with indices that are the same")
    shape = batch_shape(node)
    indices = indices[0].expand(shape)
    places = torch.zeros(shape, dtype=torch.int64)
    for axis, size in enumerate(x.shape):
        along = torch.arange(shape[axis]).reshape([-1 if axis == other else 1 for other in range(len(shape))])
        places = places * size + (indices if axis == dim - 1 else along)
    flat = program.move(node, x, (math.prod(x.shape),), Reshape, shape=(math.prod(x.shape),))
    chosen = take(program, node, flat, 1, places.flatten())
    return program.move(node, chosen, shape, Reshape, shape=shape)


def expand(program: Program, node: Node, x, *sizes, implicit=False) -> Quantized:
    """aten.expand, expand_as, broadcast_to: dimensions of size 1 repeated."""
    check_quantized(x)
    shape = batch_shape(node)
    if len(shape) != len(x.shape):
        raise Unlowerable(
            f"it expands {x.shape} to {shape}, with a dimension in front of the batch; unsqueeze behind it"
        )
    return x if shape == x.shape else program.move(node, x, shape, Expand, shape=shape)


def nearest(mode: str):
    """aten.upsample_nearest*d, aten._upsample_nearest_exact*d."""

    def lower(program: Program, node: Node, x, sizes, scales=None) -> Quantized:
        check_quantized(x)
        shape = batch_shape(node)
        call = Interpolation(mode, shape[1:], None if scales is None else tuple(scales))
        for index, size in enumerate(x.shape[1:]):
            x = take(program, node, x, index + 2, call.indices(index, size))
        return x

    return lower


def pad(program: Program, node: Node, x, amounts, mode="constant", value=None) -> Quantized:
    """aten.pad, aten.constant_pad_nd. amounts: (before, after) from the last dimension backwards, negative ones cut."""
    check_quantized(x)
    if isinstance(mode, int | float):  # constant_pad_nd has no mode, its third argument is the value
        mode, value = "constant", mode
    pairs = [tuple(amounts[index : index + 2]) for index in range(0, len(amounts), 2)][::-1]
    if len(pairs) > len(x.shape) - x.merged:
        raise Unlowerable("it pads the batch; pad the other dimensions only")
    first = len(x.shape) - len(pairs) + 1
    if mode != "constant":
        for dim, pair in enumerate(pairs, start=first):
            entries = torch.arange(x.shape[dim - 1], dtype=torch.float32)[None]
            x = take(program, node, x, dim, torch.nn.functional.pad(entries, pair, mode)[0].to(torch.int64))
        return x
    if value:
        raise Unlowerable(f"it pads with {value}, which has no code; pad with a number of the values' size")
    x = _cut(program, node, x, [(0, 0)] * (first - 1) + pairs)
    added = ((0, 0),) * (first - 1) + tuple((max(before, 0), max(after, 0)) for before, after in pairs)
    return program.move(node, x, batch_shape(node), Pad, amounts=added) if any(map(any, added)) else x


def _cut(program: Program, node: Node, x: Quantized, pairs) -> Quantized:
    """`x` without what negative amounts take away."""
    starts = tuple(max(-before, 0) for before, _ in pairs)
    ends = tuple(size - max(-after, 0) for size, (_, after) in zip(x.shape, pairs, strict=True))
    if (starts, ends) == ((0,) * len(pairs), tuple(x.shape)):
        return x
    shape = tuple(end - start for start, end in zip(starts, ends, strict=True))
    return program.move(node, x, shape, Slice, starts=starts, ends=ends, steps=(1,) * len(pairs))


def _constant(indices) -> Tensor:
    if isinstance(indices, Tensor | int):
        return indices
    raise Unlowerable("it chooses by indices that depend on the inputs; choose by constant ones, or by a mask")


RULES = {
    aten.roll.default: roll,
    aten.flip.default: flip,
    aten.repeat.default: repeat,
    aten.tile.default: repeat,
    aten.repeat_interleave.self_int: repeat_interleave,
    aten.repeat_interleave.self_Tensor: repeat_interleave,
    aten.index_select.default: index_select,
    aten.gather.default: gather,
    **dict.fromkeys((aten.expand.default, aten.expand_as.default, aten.broadcast_to.default), expand),
    **{getattr(aten, f"upsample_nearest{dims}d").vec: nearest("nearest") for dims in (1, 2, 3)},
    **{getattr(aten, f"_upsample_nearest_exact{dims}d").vec: nearest("nearest-exact") for dims in (1, 2, 3)},
    **dict.fromkeys((aten.pad.default, aten.constant_pad_nd.default), pad),
}
