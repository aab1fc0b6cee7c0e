"""Entries that integers among the inputs choose, others for each sample: the last token of every sequence."""

import torch
from torch.fx import Node

from qat.integer.operations import MASK_GRID, IndexTable
from qat.integer.program import Concatenate, Expand, Gather, Reshape, Slice
from qat.lowering.pointwise import Mapped
from qat.lowering.state import Program, Quantized, Unlowerable, batch_shape, check_quantized


def pick(program: Program, node: Node, x, chosen: Mapped) -> Quantized:
    """`x[torch.arange(len(x)), chosen]`: entries of the dimension behind the batch.

    chosen: indices (N, ...) as a function of an input; negative ones count from the end.
    """
    check_quantized(x)
    if x.merged or x.batch_at or chosen.root.merged or chosen.root.batch_at:
        raise Unlowerable("it chooses by integers where the batch is not dimension 0 alone; choose before that")
    (_, *rest), count = x.shape, 1
    for size in chosen.root.shape:
        count = count * size
    places, values = _from_the_front(program, node, x, 1, chosen)
    flat = (count, *(1 for _ in rest))
    places = places if places.shape == flat else program.move(node, places, flat, Reshape, shape=flat)
    taken = _gathered(program, node, values, 1, places, (count, *rest))
    shape = batch_shape(node)
    return taken if taken.shape == shape else program.move(node, taken, shape, Reshape, shape=shape)


def gather(program: Program, node: Node, x, dim: int, chosen: Mapped) -> Quantized:
    """aten.gather by integers that depend on the inputs."""
    check_quantized(x)
    if x.merged or x.batch_at or chosen.root.merged or chosen.root.batch_at:
        raise Unlowerable("it gathers where the batch is not dimension 0 alone; gather before that")
    dim = x.dim(dim, "picks samples of")
    places, values = _from_the_front(program, node, x, dim, chosen)
    return _gathered(program, node, values, dim, places, batch_shape(node))


def _from_the_front(program: Program, node: Node, x: Quantized, dim: int, chosen: Mapped):
    """(indices from 0 on, what they choose from): entries that are counted from the end stand in front once more."""
    if chosen.root.grid == MASK_GRID or chosen.points.is_floating_point():
        raise Unlowerable("it chooses by what are no integers; choose by indices")
    points = chosen.points.to(torch.int64)
    more = max(-int(points.min()), 0)
    places = chosen.root
    if not torch.equal(points + more, torch.arange(len(points))):
        count = int(points.max()) + more + 1
        places = program.move(node, places, places.shape, IndexTable, codes=points + more, count=count)
    if not more:
        return places, x
    size, zeros, ones = x.shape[dim - 1], (0,) * (dim - 1), (1,) * len(x.shape)
    if more > size:
        raise Unlowerable(f"it chooses entry {-more} of {size}; choose entries that are there")
    starts = (*zeros, size - more, *(0 for _ in x.shape[dim:]))
    shape = (*x.shape[: dim - 1], more, *x.shape[dim:])
    last = program.move(node, x, shape, Slice, starts=starts, ends=tuple(x.shape), steps=ones)
    joined = (*x.shape[: dim - 1], size + more, *x.shape[dim:])
    return places, program.join(node, (last, x), joined, Concatenate, dim=dim)


def _gathered(program: Program, node: Node, x: Quantized, dim: int, places: Quantized, shape) -> Quantized:
    if places.shape != shape:
        places = program.move(node, places, shape, Expand, shape=shape)
    return program.join(node, (x, places), shape, Gather, dim=dim)
