"""Softmax and normalizations, and the masks of attention."""

import torch
from torch import Tensor
from torch.fx import Node

from qat.inject.masks import MASKED_BELOW
from qat.inject.nonlinear import normalize_between, softmax_between
from qat.inject.normalizations import normalization_of, uses_own_statistics
from qat.integer.program import Reshape
from qat.lowering.indices import as_function, both, constant_mask, is_discrete, mask_of
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


def softmax(is_log: bool):
    """aten.softmax.int, aten.log_softmax.int."""

    def lower(program: Program, node: Node, x, dim, dtype=None) -> Pending:
        scores = x.scores if isinstance(x, Masked) else x
        check_quantized(scores)
        dim = scores.dim(dim)
        make = softmax_between(scores.grid, is_log, dim, scores.shape[dim - 1])
        inputs = (scores.name,)
        if isinstance(x, Masked):
            inputs += (mask_name(program, node, x.mask, len(scores.shape)),)

        def build(name, output, grid, clamp_min, clamp_max):
            names = {"name": name, "source": module_path(node), "inputs": inputs, "output": output}
            return make(grid, clamp_min, clamp_max, **names)

        return Pending(batch_shape(node), build)

    return lower


def where(program: Program, node: Node, condition, first, second):
    """aten.where: scores left out, in the form that a prepared network writes them (`qat.inject.masks.masked`)."""
    if isinstance(first, int | float) and first <= MASKED_BELOW and isinstance(second, Quantized | Masked):
        return mask_scores(program, node, second, condition)
    raise Unlowerable("it chooses between values")


def mask_scores(program: Program, node: Node, scores, mask) -> Masked:
    """Leave out the scores where `mask` is True, besides those that are out already."""
    if is_discrete(mask):
        function = as_function(mask)
        if not bool(function.points.any()):
            return scores
        taking_part = Mapped(function.root, function.points.logical_not())
        mask = mask_of(program, node, Pending(function.root.shape, None, mapped=taking_part))
    if isinstance(mask, Tensor) and not bool(mask.any()):
        return scores
    if isinstance(scores, Masked):
        return Masked(scores.scores, _joined(program, node, scores.mask, mask))
    return Masked(scores, mask)


def _joined(program: Program, node: Node, first: Tensor | Quantized, second: Tensor | Quantized) -> Tensor | Quantized:
    """Two masks of `Masked` as one, which leaves out what either does."""
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return torch.logical_or(first, second)
    taking_part = (mask.logical_not() if isinstance(mask, Tensor) else mask for mask in (first, second))
    return both(program, node, *taking_part)


def normalize(name: str):
    """aten.layer_norm, rms_norm, group_norm, instance_norm."""

    def lower(program: Program, node: Node, x, *args, **kwargs) -> Pending:
        check_quantized(x)
        if name == "instance_norm" and not uses_own_statistics((x, *args), kwargs, is_aten=True):
            raise Unlowerable("it takes running statistics; set track_running_stats=False, or use a batch norm")
        norm = normalization_of(name, (x, *args), kwargs, x.shape, is_aten=True)
        source = x if norm.view == x.shape else program.move(node, x, norm.view, Reshape, shape=norm.view)
        make = normalize_between(x.grid, norm)

        def build(name, output, grid, clamp_min, clamp_max):
            names = {"name": name, "source": module_path(node), "inputs": (source.name,), "output": output}
            return make(grid, clamp_min, clamp_max, **names)

        return Pending(norm.view, build, view=None if norm.view == x.shape else x.shape)

    return lower


def mask_name(program: Program, node: Node, mask, rank: int) -> str:
    """Name of the mask operand: 1 where scores take part."""
    return mask.name if isinstance(mask, Quantized) else constant_mask(program, node, mask.logical_not(), rank).name
