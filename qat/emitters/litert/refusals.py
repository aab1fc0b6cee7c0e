"""What LiteRT's integer kernels cannot run, or would not run equal to the program, each with a remedy."""

import math
from collections.abc import Iterator

import torch

from qat.emitters.litert.channel_scales import LOWEST_EXPONENT, vanishing
from qat.emitters.litert.limits import is_wide, offset_of, whole_steps
from qat.emitters.litert.norms import norm_divisions
from qat.emitters.litert.transposed import spreads
from qat.emitters.refused import Refusal
from qat.integer import operations as ops
from qat.integer.fixed_point import MANTISSA_BITS, Multiplier, SumMultipliers
from qat.integer.half_up import HalfUpMultipliers
from qat.integer.operations import Operation
from qat.integer.program import IntegerProgram
from qat.integer.sixteen_bits import FixedMultiplier
from qat.integer.unrolled import unrolled
from qat.integer.values import Constant, Grid, Value

#: Exponents of the factors that kernels take: of sums of products, and of products.
_SUMS, _PRODUCTS = (LOWEST_EXPONENT, 8), (-16, 8)
_SUPPORTED = (
    ops.Conv, ops.Linear, ops.MatMul, ops.Add, ops.Mul, ops.Requantize, ops.Negate, ops.Table, ops.Softmax,
    ops.Embedding, ops.AveragePool, ops.Mean, ops.Sum, ops.MaxPool, ops.Max, ops.ArgMax, ops.Concatenate, ops.Reshape,
    ops.Transpose, ops.Slice, ops.Pad, ops.Take, ops.Expand, ops.Select, ops.Normalize,
    ops.LogSoftmax, ops.Divide,
)  # fmt: skip
#: What of them has a kernel or a form of 16-bit codes.
_WIDE = (
    ops.Conv, ops.Linear, ops.MatMul, ops.Add, ops.Mul, ops.Requantize, ops.Negate, ops.Table, ops.AveragePool,
    ops.Mean, ops.Sum, ops.MaxPool, ops.Max, ops.ArgMax, ops.Concatenate, ops.Reshape, ops.Transpose, ops.Slice,
    ops.Pad, ops.Take, ops.Expand, ops.Select, ops.Normalize,
)  # fmt: skip
#: Shifts with which nothing leaves int64: a sum and its factor have up to 55 bits.
_LONGEST_SHIFT = 55
#: Dimensions with the batch, of arithmetic and of what moves codes alone.
_MOST_DIMENSIONS, _MOST_MOVED = 5, 6
_NEARBY = "export for onnxruntime"
_COLLAPSED = "look for a range that collapsed"
_MISSING = "apply qat.integer.semantics.for_runtime(program, 'litert') first"
#: A problem, its remedy, and where there are some the numbers of one operation.
_Problem = tuple[str, str] | tuple[str, str, str]
#: Operations of loops that are written out: a file of 20,000 takes a minute to write.
_MOST_STEPS = 20_000


def refusals(program: IntegerProgram) -> list[Refusal]:
    """What is in the way of each value and operation that has no equal form in a .tflite file; empty where it exports.

    A program of several lengths is exported at its recorded one.
    """
    program = program.at()
    if found := [*_long_loops(program)]:
        return found
    program = unrolled(program)
    found = [*_wide(program)]
    left_out = {name for spread in spreads(program).values() for name in spread.steps}
    for operation in program.operations:
        if isinstance(operation, ops.FloatIsland):
            found.append(Refusal.of_island(operation))
        elif operation.name not in left_out:
            found += [Refusal.of(operation, *problem) for problem in _problems(program, operation)]
    return found


def _long_loops(program: IntegerProgram) -> Iterator[Refusal]:
    for operation in program.operations:
        if isinstance(operation, ops.Loop):
            steps, each = program.value(operation.sequences[0]).shape[0], len(operation.body.operations)
            if steps * each > _MOST_STEPS:
                yield Refusal.of(
                    operation,
                    f"LiteRT's file has every step of a loop written out, up to {_MOST_STEPS} operations",
                    f"use shorter sequences or a convolutional layer, or {_NEARBY}",
                    f"here are {steps} steps of {each}",
                )


def _wide(program: IntegerProgram) -> Iterator[Refusal]:
    for value in (*program.values, *program.constants):
        grid = value.grid
        if is_wide(grid) and (grid.zero_point != 0 or grid.quant_min >= 0):
            yield Refusal.of_value(
                value.name,
                "LiteRT's kernels of 16-bit codes take signed ones around 0",
                "leave the activations' grids to target=litert (activation.signed and activation.symmetric open), or "
                "quantize them to at most 8 bits",
                f"these are {grid.quant_min}..{grid.quant_max} with zero point {grid.zero_point}",
            )


def _problems(program: IntegerProgram, operation: Operation) -> Iterator[_Problem]:
    if not isinstance(operation, _SUPPORTED):
        yield "LiteRT has no integer kernel for it", _NEARBY
        return
    rank = len(program.value(operation.output).shape)
    most = _MOST_MOVED if isinstance(operation, ops.Reshape | ops.Transpose) else _MOST_DIMENSIONS
    if rank >= most:
        yield (
            f"LiteRT has kernels on up to {most} dimensions with the batch",
            "join some by a reshape",
            f"{operation.output!r} has {rank + 1}",
        )
    if _has_wide(program, operation):
        yield from _wide_problems(program, operation)
    match operation:
        case ops.Conv() | ops.AveragePool() | ops.MaxPool() if len(operation.kernel_size) > 2:
            yield "LiteRT has integer windows over one or two dimensions", "fold a third into the batch"
        case ops.MaxPool() if set(operation.dilation) != {1}:
            yield "LiteRT has no max pool with dilation", "use dilation 1", f"here {operation.dilation}"
        case ops.Normalize():
            yield from _norm(program, operation)
        case ops.MatMul():
            yield from _matrices(program, operation)
        case ops.Add() if not isinstance(operation.factors, HalfUpMultipliers) and not _has_wide(program, operation):
            yield "LiteRT rounds additions half up", _MISSING
        case ops.Mul() | ops.Requantize() if not operation.rounds_first:
            yield "LiteRT rounds a product before it adds the zero point", _MISSING
    multiplier = getattr(operation, "multiplier", None)
    if isinstance(multiplier, Multiplier):
        low, high = _PRODUCTS if isinstance(operation, ops.Mul | ops.Requantize) else _SUMS
        exponents = multiplier.exponent + MANTISSA_BITS
        if isinstance(operation, ops.WeightedOperation):
            exponents = exponents[~vanishing(program, operation)]
        if exponents.numel() and (int(exponents.min()) <= low or int(exponents.max()) > high):
            yield (
                f"LiteRT takes rescaling factors of 2^{low} to below 2^{high}",
                _COLLAPSED,
                f"here are 2^{int(exponents.min()) - 1} to 2^{int(exponents.max())}",
            )


def _has_wide(program: IntegerProgram, operation: Operation) -> bool:
    """Whether codes of it have more than 8 bits."""
    return any(is_wide(program.value(name).grid) for name in (*operation.inputs, operation.output))


def _wide_problems(program: IntegerProgram, operation: Operation) -> Iterator[_Problem]:
    """What stands against an operation on 16-bit codes."""
    if not isinstance(operation, _WIDE):
        yield "LiteRT has no kernel of 16-bit codes for it", "quantize the network's activations to at most 8 bits"
        return
    values = [program.value(name) for name in (*operation.inputs, operation.output)]
    narrow = [
        value for value in values if isinstance(value, Value) and isinstance(value.grid, Grid) and value.grid.bits <= 8
    ]
    if isinstance(operation, ops.Requantize) and narrow == values[:1] and offset_of(narrow[0].grid) == 0:
        narrow = []
    if narrow and not isinstance(operation, ops.Table | ops.Select):
        yield (
            "LiteRT has kernels for codes of one width",
            "give all activations the same",
            f"{narrow[0].name!r} has {narrow[0].grid.bits} bits beside others of 16",
        )
    multiplier, factors = (getattr(operation, name, None) for name in ("multiplier", "factors"))
    if isinstance(multiplier, Multiplier) or isinstance(factors, SumMultipliers | HalfUpMultipliers):
        yield "LiteRT rescales 16-bit codes in fixed point", _MISSING
    if isinstance(multiplier, FixedMultiplier):
        reach = operation.reach([program.value(name) for name in operation.inputs], program.value(operation.output))
        largest = multiplier.largest(reach)
        if largest >= 2**31:
            yield "LiteRT rescales numbers to int32", _COLLAPSED, f"these reach {largest:.3g} steps"


def _matrices(program: IntegerProgram, operation: ops.MatMul) -> Iterator[_Problem]:
    if _has_wide(program, operation):
        return
    constants = [program.value(name) for name in operation.inputs if isinstance(program.value(name), Constant)]
    if not constants and not operation.rounds_once:
        yield "LiteRT rescales a product of two values in integers", _MISSING
    shift = -int(operation.multiplier.exponent)
    if not constants and not 1 <= shift <= _LONGEST_SHIFT:
        yield f"LiteRT shifts a product by 1 to {_LONGEST_SHIFT} bits", _COLLAPSED, f"not by {shift}"
    for constant in constants:
        if math.prod(constant.shape[:-2]) != 1:
            yield "LiteRT multiplies by one constant matrix for all", "split the product"
        centered = constant.codes.to(torch.int64).numpy() - constant.grid.zero_point
        centered, _ = whole_steps(centered)
        if centered.min() < -128 or centered.max() > 127:
            yield (
                "LiteRT takes constants of 8 bits and zero point 0",
                _NEARBY,
                f"{constant.name!r} reaches {centered.min()} to {centered.max()}",
            )


def _norm(program: IntegerProgram, operation: ops.Normalize) -> Iterator[_Problem]:
    source, target = program.value(operation.inputs[0]), program.value(operation.output)
    found = norm_divisions(operation, tuple(source.shape), source.grid, target.grid)
    if isinstance(found, str):
        yield "LiteRT has no integers wide enough", f"normalize fewer elements together, or {_NEARBY}", found
