"""Which whole numbers the operations without weights compute, for `qat.inject.exact`."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from qat.errors import ProgramError
from qat.inject import exact
from qat.inject.calls import Slot, operand_at, with_operand
from qat.inject.exact import Accumulator
from qat.inject.exact_kernels import Computed, codes_of
from qat.inject.masks import left_out
from qat.inject.nonlinear import divide_between, normalize_between, softmax_between
from qat.inject.normalizations import normalization_of, uses_own_statistics
from qat.inject.operations import Operation, bounds_of, first_operand
from qat.inject.resampling import RESAMPLED, Resampling, resampling_of
from qat.integer.geometry import per_dimension
from qat.integer.operations import MASK_GRID, MatMul, Mean, Mul, Negate, Requantize
from qat.integer.semantics import USUAL, Semantics
from qat.integer.values import Grid, float32


def accumulate(
    operation: Operation,
    function,
    args: tuple,
    kwargs: dict,
    result: Tensor,
    grids: dict[Slot | None, Grid],
    recorded: tuple[int, ...] = (),
    semantics: Semantics = USUAL,
) -> tuple[Tensor, Accumulator | Computed] | None:
    """(the result in real units, its accumulator) of one call; None where the operation has no integer form here.

    grids: of each tensor operand by slot, and of the result under None. recorded: shape of the result then.
    semantics: how the runtime rounds that the network is prepared for.
    """
    slots = [slot for slot in grids if slot is not None]
    if not slots:
        return None
    source = grids[slots[0]]
    means = kind_between(semantics, Mean, grids)
    if operation.name in RESAMPLED:
        x = first_operand(args, kwargs)
        resampling = resampling_of(operation.name, args, kwargs, tuple(x.shape[1:]), tuple(result.shape[1:]))
        if resampling is not None:
            return result, _resampled(x, source, resampling, semantics)
    match operation.name:
        case "matmul" | "bmm" | "mm":
            return _product(function, args, kwargs, result, grids, semantics)
        case "layer_norm" | "rms_norm" | "group_norm" | "instance_norm":
            x = first_operand(args, kwargs)
            if operation.name == "instance_norm" and not uses_own_statistics(args, kwargs, is_aten=False):
                return None
            norm = normalization_of(operation.name, args, kwargs, tuple(x.shape[1:]), is_aten=False)
            viewed = codes_of(x, source).reshape(len(x), *norm.view)
            return result, Computed(normalize_between(source, norm), (viewed,), (source,))
        case "softmax" | "log_softmax":
            x = first_operand(args, kwargs)
            dim = args[1] if len(args) > 1 else kwargs["dim"]
            # rows that are shorter than the recorded ones are computed with the factors of those, as in a program
            count = max(x.shape[dim], recorded[dim]) if len(recorded) == x.dim() else x.shape[dim]
            make = softmax_between(source, operation.name == "log_softmax", dim % x.dim(), count)
            mask = left_out(x)
            mask = torch.logical_not(mask) if bool(mask.any()) else None
            return result, Computed(make, (codes_of(x, source), mask), (source, MASK_GRID))
        case "add" | "sub" | "mul" | "div":
            return _binary(operation, args, kwargs, result, grids, semantics)
        case "sum":
            return result, exact.sum_of_codes(source, 1, means)
        # an interpolation that is no product with matrices takes the mean of even windows
        case "mean" | "adaptive_avg_pool1d" | "adaptive_avg_pool2d" | "adaptive_avg_pool3d" | "interpolate":
            return result, exact.sum_of_codes(source, first_operand(args, kwargs).numel() // result.numel(), means)
        case "avg_pool1d" | "avg_pool2d" | "avg_pool3d":
            kernel = args[1] if len(args) > 1 else kwargs["kernel_size"]
            return result, exact.sum_of_codes(source, math.prod(per_dimension(kernel, int(operation.name[-2]))), means)
        case "relu" | "relu6" | "hardtanh" | "clamp" | "clamp_min" | "clamp_max":
            kind = kind_between(semantics, Requantize, grids)
            accumulator = exact.product(source.scale, 1.0, semantics.rounds_first, kind)
            accumulator.bound(*bounds_of(operation, args, kwargs))  # a bound is no whole number, but becomes a code
            return first_operand(args, kwargs), accumulator
    return None


def kind_between(semantics: Semantics, operation: type, grids: Mapping[Slot | None, Grid]) -> exact.Kind:
    """How an operation of that type is rescaled whose operands are on `grids`, by the grid of its result."""
    sources = [grid for slot, grid in grids.items() if slot is not None]
    return lambda grid: semantics.kind(operation, *sources, grid)


def _binary(
    operation: Operation, args: tuple, kwargs: dict, result: Tensor, grids, semantics: Semantics
) -> tuple[Tensor, Accumulator] | None:
    if kwargs.get("alpha", 1) != 1 or kwargs.get("rounding_mode") is not None:
        return None
    second = args[1] if len(args) > 1 else kwargs["other"]
    entries = [
        (first_operand(args, kwargs), grids.get(("args", 0), grids.get(("kwargs", "input")))),
        (second, grids.get(("args", 1), grids.get(("kwargs", "other")))),
    ]
    if operation.name == "sub":
        entries[1] = _negative(*entries[1])
    if entries[0][1] is None:  # the value first, as when lowering
        entries.reverse()
    (value, grid), (other, other_grid) = entries
    if operation.name == "div" and isinstance(other, Tensor) and other_grid is not None:
        return result, _quotient(args, kwargs, grids)
    if isinstance(other, int | float):
        if operation.name == "div":
            other = 1 / other
        if operation.name in ("mul", "div"):
            factor = float32(abs(other))  # the sign is in the result
            kind = kind_between(semantics, Requantize, grids)
            return result, exact.product(grid.scale, factor, semantics.rounds_first, kind)
        other_grid = exact.number_grid(other)
        other = torch.tensor(float32(other), device=value.device)
    if other_grid is None or operation.name == "div":  # a mask, which lowering refuses
        return None
    if operation.name == "mul":
        kind = kind_between(semantics, Mul, grids)
        return result, exact.product(grid.scale, other_grid.scale, semantics.rounds_first, kind)
    try:
        total, accumulator = exact.addition(value.detach(), grid, other.detach(), other_grid, grids[None], semantics)
    except ProgramError:  # a range that collapsed: conversion says so, a validation on the way goes on
        return None
    if result.requires_grad:
        total = exact.straight_through(result, total, torch.ones_like(total, dtype=torch.bool))
    return total, accumulator


def _product(
    function, args: tuple, kwargs: dict, result: Tensor, grids, semantics: Semantics
) -> tuple[Tensor, Accumulator] | None:
    slots = [slot for slot in grids if slot is not None]
    if len(slots) != 2:
        return None
    steps_args, steps_kwargs = args, kwargs
    for slot in slots:
        steps = exact.steps(operand_at(args, kwargs, slot).detach(), grids[slot])
        steps_args, steps_kwargs = with_operand(steps_args, steps_kwargs, slot, steps)
    whole = function(*steps_args, **steps_kwargs)
    scales, kind = (grids[slot].scale for slot in sorted(slots)), kind_between(semantics, MatMul, grids)
    return result, exact.product_of_matrices(*scales, whole, once=semantics.rounds_once, kind=kind)


def _quotient(args: tuple, kwargs: dict, grids) -> Computed:
    slots = sorted(slot for slot in grids if slot is not None)
    if slots[0][0] == "kwargs":
        slots = [("kwargs", "input"), ("kwargs", "other")]
    codes = tuple(codes_of(operand_at(args, kwargs, slot), grids[slot]) for slot in slots)
    rank = max(operand.dim() for operand in codes)
    codes = tuple(operand.reshape((1,) * (rank - operand.dim()) + operand.shape) for operand in codes)
    return Computed(divide_between(*(grids[slot] for slot in slots)), codes, tuple(grids[slot] for slot in slots))


def _resampled(x: Tensor, grid: Grid, resampling: Resampling, semantics: Semantics) -> Computed:
    codes = codes_of(x, grid)
    *inner, last = resampling.stages(tuple(x.shape[1:]))
    for stage in inner:
        codes, grid = stage.run(codes, grid, semantics)
    operands = last.operands(last.viewed(codes), last.codes[None].to(codes.device))
    return Computed(last.make(grid, semantics), operands, last.operands(grid, last.grid))


def _negative(operand, grid: Grid | None) -> tuple:
    """Minus an operand, and the grid of that."""
    return -operand, None if grid is None else Negate.mirrored(grid)
