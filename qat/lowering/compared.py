"""Integers among the inputs compared with several numbers, or with each other: masks of lengths, classes as 0 and 1.

`torch.arange(n) < lengths[:, None]` is a function of two integers that depends on their difference alone. That is a sum
of indices, one of them mirrored so that it is never negative, and the comparison is a table of that.
"""

import torch
from torch import Tensor
from torch.fx import Node

from qat.integer.operations import MASK_GRID, IndexSum, IndexTable
from qat.integer.program import Constant
from qat.lowering.index_ranges import COMPARISONS
from qat.lowering.indices import as_function, constant_indices, function_node, is_discrete
from qat.lowering.pointwise import Mapped
from qat.lowering.state import Pending, Program, Quantized, Unlowerable, batch_shape


def compared(program: Program, node: Node, name: str, first, second) -> Pending:
    """Where one of several integers is equal to, less than or more than another. One of both may be a constant."""
    shape = batch_shape(node)
    left, low = _counted(program, node, first, len(shape), mirrored=False)
    right, high = _counted(program, node, second, len(shape), mirrored=True)
    difference = as_function(program.join(node, (left, right), shape, IndexSum))
    points = getattr(torch, name)(difference.points, high - low)
    return function_node(node, Mapped(difference.root, points))


def _counted(program: Program, node: Node, operand, rank: int, mirrored: bool) -> tuple[Quantized | Constant, int]:
    """(indices from 0 on, what to add for the integers); mirrored: (indices, what to subtract them from).

    rank: dimensions of the result, without the batch.
    """
    constant = isinstance(operand, Tensor)
    mapped = None if constant else as_function(operand)
    points = (operand if constant else mapped.points).to(torch.int64)
    if (operand if constant else mapped.points).is_floating_point():
        raise Unlowerable("it compares integers among the inputs with real numbers; compare with integers")
    end = int(points.max() if mirrored else points.min())
    codes = end - points if mirrored else points - end
    count = int(codes.max()) + 1
    if constant:
        return constant_indices(program, node, codes), end
    if mapped.root.rank != rank + 1 or mapped.root.merged or mapped.root.batch_at:
        raise Unlowerable("it compares integers whose batch is in different places; unsqueeze them behind the batch")
    if mapped.root.grid == MASK_GRID:
        raise Unlowerable("it compares a mask with integers; combine masks with & and |")
    if torch.equal(codes, torch.arange(len(codes))):
        return mapped.root, end
    return program.move(node, mapped.root, mapped.root.shape, IndexTable, codes=codes, count=count), end


def compares_several(name: str, args: tuple) -> bool:
    """Whether a node compares integers among the inputs with more than one number."""
    if name not in COMPARISONS or len(args) != 2 or not any(map(is_discrete, args)):
        return False
    if all(map(is_discrete, args)):
        return as_function(args[0]).root.name != as_function(args[1]).root.name
    return any(isinstance(argument, Tensor) and argument.numel() > 1 for argument in args)
