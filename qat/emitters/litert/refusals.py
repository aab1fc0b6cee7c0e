"""What LiteRT's integer kernels cannot run, or would not run equal to the program, each in a sentence with a remedy."""

import math
from collections.abc import Iterator

import torch

from qat.emitters.litert.limits import is_wide, offset_of, whole_steps
from qat.emitters.litert.transposed import spreads
from qat.integer import operations as ops
from qat.integer.fixed_point import Multiplier, SumMultipliers
from qat.integer.half_up import HalfUpMultipliers
from qat.integer.operations import Operation
from qat.integer.program import IntegerProgram
from qat.integer.sixteen_bits import FixedMultiplier
from qat.integer.values import Constant, Grid, Value

#: Exponents of the factors that kernels take: of sums of products, and of products.
_SUMS, _PRODUCTS = (-32, 8), (-16, 8)
_SUPPORTED = (
    ops.Conv, ops.Linear, ops.MatMul, ops.Add, ops.Mul, ops.Requantize, ops.Negate, ops.Table, ops.Softmax,
    ops.Embedding, ops.AveragePool, ops.Mean, ops.Sum, ops.MaxPool, ops.Max, ops.ArgMax, ops.Concatenate, ops.Reshape,
    ops.Transpose, ops.Slice, ops.Pad, ops.Take, ops.Expand, ops.Select,
)  # fmt: skip
#: What of them has a kernel or a form of 16-bit codes.
_WIDE = (
    ops.Conv, ops.Linear, ops.MatMul, ops.Add, ops.Mul, ops.Requantize, ops.Negate, ops.Table, ops.AveragePool,
    ops.Mean, ops.Sum, ops.MaxPool, ops.Max, ops.ArgMax, ops.Concatenate, ops.Reshape, ops.Transpose, ops.Slice,
    ops.Pad, ops.Take, ops.Expand, ops.Select,
)  # fmt: skip
#: Shifts with which nothing leaves int64: a sum and its factor have up to 55 bits.
_LONGEST_SHIFT = 55
#: Dimensions with the batch, of arithmetic and of what moves codes alone.
_MOST_DIMENSIONS, _MOST_MOVED = 5, 6
_MISSING = "apply qat.integer.semantics.for_runtime(program, 'litert') first"
_REMEDIES = {
    ops.FloatIsland: "has no float islands beside integer kernels; drop the rule that leaves it in float",
    ops.Loop: "has no loop of integer kernels; use a convolutional layer, or export for onnxruntime",
    ops.LogSoftmax: "computes its logarithm in floating point; leave it to the caller, or export for onnxruntime",
    ops.Normalize: "has no integer normalization; use batch norm, or export for onnxruntime",
    ops.Divide: "has no integer division of two values; divide by a number, or export for onnxruntime",
}


def refusals(program: IntegerProgram) -> list[str]:
    """One sentence for each value and operation that has no equal form in a .tflite file; empty where it exports.

    A program of several lengths is exported at its recorded one.
    """
    program = program.at()
    found = [_wide(program, value.name) for value in (*program.values, *program.constants)]
    left_out = {name for spread in spreads(program).values() for name in spread.steps}
    for operation in program.operations:
        if operation.name in left_out:
            continue
        found += [_sentence(operation, problem) for problem in _problems(program, operation)]
    return [sentence for sentence in found if sentence]


def _wide(program: IntegerProgram, name: str) -> str:
    grid = program.value(name).grid
    if not is_wide(grid) or grid.zero_point == 0 and grid.quant_min < 0:
        return ""
    return (
        f"value {name!r} has codes {grid.quant_min}..{grid.quant_max} with zero point {grid.zero_point}, and LiteRT's "
        "kernels of 16-bit codes take signed ones around 0; set activation.signed=True, activation.symmetric=True, or "
        "quantize its activations to at most 8 bits."
    )


def _sentence(operation: Operation, problem: str) -> str:
    origin = f" (from {operation.source})" if operation.source else ""
    return f"{type(operation).__name__} {operation.name!r}{origin}: LiteRT {problem}."


def _problems(program: IntegerProgram, operation: Operation) -> Iterator[str]:
    if not isinstance(operation, _SUPPORTED):
        yield _REMEDIES.get(type(operation), "has no integer kernel for it; export for onnxruntime")
        return
    rank = len(program.value(operation.output).shape)
    most = _MOST_MOVED if isinstance(operation, ops.Reshape | ops.Transpose) else _MOST_DIMENSIONS
    if rank >= most:
        yield (
            f"has kernels on up to {most} dimensions with the batch, and {operation.output!r} has {rank + 1}; join "
            "some by a reshape"
        )
    if _has_wide(program, operation):
        yield from _wide_problems(program, operation)
    match operation:
        case ops.Conv() | ops.AveragePool() | ops.MaxPool() if len(operation.kernel_size) > 2:
            yield "has integer windows over one or two dimensions; fold a third into the batch"
        case ops.MaxPool() if set(operation.dilation) != {1}:
            yield f"has no max pool with dilation {operation.dilation}; use dilation 1"
        case ops.Softmax():
            yield from _softmax(program, operation)
        case ops.MatMul():
            yield from _matrices(program, operation)
        case ops.Add() if not isinstance(operation.factors, HalfUpMultipliers) and not _has_wide(program, operation):
            yield f"rounds additions half up; {_MISSING}"
        case ops.Mul() | ops.Requantize() if not operation.rounds_first:
            yield f"rounds a product before it adds the zero point; {_MISSING}"
    multiplier = getattr(operation, "multiplier", None)
    if isinstance(multiplier, Multiplier):
        low, high = _PRODUCTS if isinstance(operation, ops.Mul | ops.Requantize) else _SUMS
        exponents = multiplier.exponent + 24
        if int(exponents.min()) <= low or int(exponents.max()) > high:
            yield (
                f"takes rescaling factors of 2^{low} to below 2^{high}, and this one has "
                f"2^{int(exponents.min()) - 1} to 2^{int(exponents.max())}; look for a range that collapsed"
            )


def _has_wide(program: IntegerProgram, operation: Operation) -> bool:
    """Whether codes of it have more than 8 bits."""
    return any(is_wide(program.value(name).grid) for name in (*operation.inputs, operation.output))


def _wide_problems(program: IntegerProgram, operation: Operation) -> Iterator[str]:
    """What stands against an operation on 16-bit codes."""
    if not isinstance(operation, _WIDE):
        yield "has no kernel of 16-bit codes for it; quantize the network's activations to at most 8 bits"
        return
    values = [program.value(name) for name in (*operation.inputs, operation.output)]
    narrow = [
        value for value in values if isinstance(value, Value) and isinstance(value.grid, Grid) and value.grid.bits <= 8
    ]
    if isinstance(operation, ops.Requantize) and narrow == values[:1] and offset_of(narrow[0].grid) == 0:
        narrow = []
    if narrow and not isinstance(operation, ops.Table | ops.Select):
        yield (
            f"has kernels for codes of one width, and {narrow[0].name!r} has {narrow[0].grid.bits} bits beside others "
            "of 16; give all activations the same"
        )
    multiplier, factors = (getattr(operation, name, None) for name in ("multiplier", "factors"))
    if isinstance(multiplier, Multiplier) or isinstance(factors, SumMultipliers | HalfUpMultipliers):
        yield f"rescales 16-bit codes in fixed point; {_MISSING}"
    if isinstance(multiplier, FixedMultiplier):
        reach = operation.reach([program.value(name) for name in operation.inputs], program.value(operation.output))
        largest = multiplier.largest(reach)
        if largest >= 2**31:
            yield f"rescales numbers to {largest:.3g} steps, beyond int32; look for an output range that collapsed"


def _matrices(program: IntegerProgram, operation: ops.MatMul) -> Iterator[str]:
    if _has_wide(program, operation):
        return
    constants = [program.value(name) for name in operation.inputs if isinstance(program.value(name), Constant)]
    if not constants and not operation.rounds_once:
        yield f"rescales a product of two values in integers; {_MISSING}"
    shift = -int(operation.multiplier.exponent)
    if not constants and not 1 <= shift <= _LONGEST_SHIFT:
        yield f"shifts a product by 1 to {_LONGEST_SHIFT} bits, not by {shift}; look for a range that collapsed"
    for constant in constants:
        if math.prod(constant.shape[:-2]) != 1:
            yield "multiplies by one constant matrix for all; split the product"
        centered = constant.codes.to(torch.int64).numpy() - constant.grid.zero_point
        centered, _ = whole_steps(centered)
        if centered.min() < -128 or centered.max() > 127:
            yield (
                f"takes constants of 8 bits and zero point 0, and {constant.name!r} reaches {centered.min()} to "
                f"{centered.max()}; export for onnxruntime"
            )


def _softmax(program: IntegerProgram, operation: ops.Softmax) -> Iterator[str]:
    count = program.value(operation.inputs[0]).shape[operation.dim - 1]
    if len(operation.inputs) > 1:
        yield "has no form of a softmax with a mask; export for onnxruntime"
    # of narrow results these have at most 30 bits, of sums 31
    if operation.factors.divisor_limit >= 2**31 or int(operation.factors.exponentials[0]) * count >= 2**31:
        yield f"adds exponentials in 32 bits, and a row of {count} takes more; export for onnxruntime"
