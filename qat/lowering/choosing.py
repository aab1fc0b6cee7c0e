"""Codes chosen by a mask or by their size, and the masks and indices that comparing them makes."""

import dataclasses
import operator

import torch
from torch import Tensor
from torch.fx import Node

from qat.inject.tables import grid_points
from qat.integer.program import (
    Add,
    ArgMax,
    Concatenate,
    Expand,
    Grid,
    Max,
    Negate,
    Reshape,
    Select,
    SumMultipliers,
    TopKIndices,
    TopKValues,
)
from qat.lowering import normalized
from qat.lowering.chosen import chosen_by_mask
from qat.lowering.indices import constant_mask, is_discrete, mask_of
from qat.lowering.pointwise import Mapped
from qat.lowering.state import (
    Masked,
    Pending,
    Program,
    Quantized,
    Unlowerable,
    batch_shape,
    check_quantized,
    module_path,
)

aten = torch.ops.aten


def where(program: Program, node: Node, condition, first, second):
    """aten.where: scores left out of a softmax, or values chosen by a mask."""
    if isinstance(first, int | float) and isinstance(second, Quantized | Masked):
        return normalized.where(program, node, condition, first, second)
    if is_discrete(condition) and all(isinstance(x, Tensor | int | float) for x in (first, second)):
        return chosen_by_mask(node, condition, first, second)
    shape = batch_shape(node)
    operands = [program.operand(x, len(shape)) for x in (first, second)]
    if isinstance(condition, Tensor):
        mask = constant_mask(program, node, condition, len(shape))
    elif is_discrete(condition):
        mask = mask_of(program, node, condition)
    else:
        raise Unlowerable("its condition is no mask: compare values with a number, or with values on their grid")
    if not any(isinstance(x, Quantized) for x in operands):
        raise Unlowerable("it chooses between constants; turn the mask into real numbers with .float()")
    chosen = program.join(node, (mask, *operands), shape, Select)
    value = next(x for x in operands if isinstance(x, Quantized))
    return dataclasses.replace(chosen, quantizer=value.quantizer)


def masked_fill(program: Program, node: Node, x, mask, value):
    """aten.masked_fill: `value` where the mask is True."""
    return where(program, node, mask, value, x)


def extreme(largest: bool):
    """aten.maximum, aten.minimum, aten.max.other, aten.min.other: the larger or the smaller of two values."""

    def lower(program: Program, node: Node, first, second) -> Quantized:
        shape = batch_shape(node)
        operands = []
        for x in (program.operand(x, len(shape)) for x in (first, second)):
            if isinstance(x, Quantized):
                x = x if x.shape == shape else program.move(node, x, shape, Expand, shape=shape)
                x = x if largest else program.move(node, x, shape, Negate)
                operands.append(program.move(node, x, (1, *shape), Reshape, shape=(1, *shape)))
            else:
                codes, grid = x.codes.expand(shape)[None], x.grid
                if not largest:
                    codes, grid = grid.quant_min + grid.quant_max - codes.to(torch.int32), Negate.mirrored(grid)
                operands.append(program.constant(x.name, grid, codes))
        both = program.join(node, operands, (2, *shape), Concatenate, dim=1)
        chosen = program.move(node, both, shape, Max, dims=(1,), keepdim=False)
        return chosen if largest else program.move(node, chosen, shape, Negate)

    return lower


def smallest(program: Program, node: Node, x, dims=(), keepdim=False) -> Quantized:
    """aten.amin: minus the largest of minus the values."""
    check_quantized(x)
    dims = tuple(sorted(x.dim(dim, "reduces over") for dim in (dims or range(x.rank))))
    mirrored = program.move(node, x, x.shape, Negate)
    found = program.move(node, mirrored, batch_shape(node), Max, dims=dims, keepdim=keepdim)
    return program.move(node, found, found.shape, Negate)


def extreme_along(largest: bool):
    """aten.max.dim, aten.min.dim: (values, where they are)."""

    def lower(program: Program, node: Node, x, dim, keepdim=False) -> tuple:
        check_quantized(x)
        dim, shape = x.dim(dim, "reduces over"), batch_shape(node, 0)
        source = x if largest else program.move(node, x, x.shape, Negate)
        found = places = None
        if _is_used(node, 0):
            found = program.move(node, source, shape, Max, dims=(dim,), keepdim=keepdim)
            found = found if largest else program.move(node, found, shape, Negate)
        if _is_used(node, 1):
            places = program.move(node, source, shape, ArgMax, dim=dim, keepdim=keepdim)
        return found, places

    return lower


def index_of_extreme(largest: bool):
    """aten.argmax, aten.argmin."""

    def lower(program: Program, node: Node, x, dim=None, keepdim=False) -> Quantized:
        check_quantized(x)
        if dim is None:
            raise Unlowerable("it looks through the flattened tensor, the batch with it; name the dimension")
        source = x if largest else program.move(node, x, x.shape, Negate)
        return program.move(node, source, batch_shape(node), ArgMax, dim=x.dim(dim), keepdim=keepdim)

    return lower


def topk(program: Program, node: Node, x, k, dim=-1, largest=True, sorted=True) -> tuple:
    """aten.topk: (values, where they are)."""
    check_quantized(x)
    settings = {"dim": x.dim(dim), "k": k, "largest": largest}
    shape = batch_shape(node, 0)
    return tuple(
        program.move(node, x, shape, kind, **settings) if _is_used(node, index) else None
        for index, kind in enumerate((TopKValues, TopKIndices))
    )


def sort(program: Program, node: Node, x, dim=-1, descending=False, stable=True) -> tuple:
    """aten.sort: all of them."""
    check_quantized(x)
    return topk(program, node, x, x.shape[x.dim(dim) - 1], dim, descending)


def compare(program: Program, node: Node, first, second):
    """aten.gt, ge, lt, le, eq, ne of a value and a number, or of two values on one grid: a mask."""
    check_quantized(first)
    if isinstance(second, Quantized):
        first, second = _difference(program, node, first, second), 0
    if isinstance(second, Tensor) and second.numel() == 1:
        second = float(second)
    if not isinstance(second, int | float):
        raise Unlowerable("it compares with a constant of several numbers; compare the difference with 0")
    comparison = getattr(torch, node.target.overloadpacket.__name__)
    points = comparison(grid_points(first.grid).float(), second)
    return mask_of(program, node, Pending(first.shape, None, mapped=Mapped(first, points)))


def _difference(program: Program, node: Node, first: Quantized, second: Quantized) -> Quantized:
    """first - second in steps of their one grid, cut off where its sign is clear."""
    if first.grid != second.grid or len(first.shape) != len(second.shape):
        raise Unlowerable("it compares values that lie on two grids; compare their difference with 0")
    mirrored = program.move(node, second, second.shape, Negate)
    grid = Grid(first.grid.scale, 0, -128, 127)
    name = program.unique(f"{module_path(node) or 'network'}.difference")
    program.operations.append(
        Add(
            name=name, source=module_path(node), inputs=(first.name, mirrored.name), output=name,
            clamp_min=grid.quant_min, clamp_max=grid.quant_max,
            factors=SumMultipliers.from_grids(first.grid, mirrored.grid, grid),
        )
    )  # fmt: skip
    return program.value(name, batch_shape(node), grid, first.quantizer)


def _is_used(node: Node, index: int) -> bool:
    """Whether anything reads the result number `index` of a node of several."""
    return any(user.target is operator.getitem and user.args[1] == index and user.users for user in node.users)


RULES = {
    **dict.fromkeys((aten.where.self, aten.where.ScalarSelf, aten.where.ScalarOther, aten.where.Scalar), where),
    **dict.fromkeys((aten.masked_fill.Scalar, aten.masked_fill.Tensor), masked_fill),
    **dict.fromkeys((aten.maximum.default, aten.max.other, aten.fmax.default), extreme(largest=True)),
    **dict.fromkeys((aten.minimum.default, aten.min.other, aten.fmin.default), extreme(largest=False)),
    aten.amin.default: smallest,
    aten.max.dim: extreme_along(largest=True),
    aten.min.dim: extreme_along(largest=False),
    aten.argmax.default: index_of_extreme(largest=True),
    aten.argmin.default: index_of_extreme(largest=False),
    aten.topk.default: topk,
    aten.sort.default: sort,
    aten.sort.stable: lambda program, node, x, *, stable=None, dim=-1, descending=False: sort(
        program, node, x, dim, descending
    ),
    **{
        getattr(getattr(aten, name), overload): compare
        for name in ("gt", "ge", "lt", "le", "eq", "ne") for overload in ("Scalar", "Tensor")
    },
}  # fmt: skip
