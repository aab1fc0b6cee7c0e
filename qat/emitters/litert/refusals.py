"""What LiteRT's integer kernels cannot run, or would not run equal to the program, each in a sentence with a remedy."""

from collections.abc import Iterator

from qat.integer import operations as ops
from qat.integer.half_up import HalfUpMultipliers
from qat.integer.operations import Operation
from qat.integer.program import IntegerProgram
from qat.integer.values import Grid

#: Exponents of the factors that kernels take: of sums of products, and of products.
_SUMS, _PRODUCTS = (-32, 8), (-16, 8)
_SUPPORTED = (
    ops.Conv, ops.Linear, ops.Add, ops.Mul, ops.Requantize, ops.Negate, ops.Table, ops.Embedding, ops.AveragePool,
    ops.Mean, ops.Sum, ops.MaxPool, ops.Max, ops.ArgMax, ops.Concatenate, ops.Reshape, ops.Transpose, ops.Slice,
    ops.Pad, ops.Take, ops.Expand, ops.Select,
)  # fmt: skip
_MISSING = "apply qat.integer.semantics.for_runtime(program, 'litert') first"
_REMEDIES = {
    ops.FloatIsland: "has no float islands beside integer kernels; drop the rule that leaves it in float",
    ops.Loop: "has no loop of integer kernels; use a convolutional layer, or export for onnxruntime",
    ops.Softmax: "computes softmax in floating point; leave it to the caller, who needs only the largest score, or "
    "export for onnxruntime",
    ops.LogSoftmax: "computes its logarithm in floating point; leave it to the caller, or export for onnxruntime",
    ops.Normalize: "has no integer normalization; use batch norm, or export for onnxruntime",
    ops.Divide: "has no integer division of two values; divide by a number, or export for onnxruntime",
    ops.MatMul: "rounds products of two values otherwise on each processor; export for onnxruntime",
}


def refusals(program: IntegerProgram) -> list[str]:
    """One sentence for each value and operation that has no equal form in a .tflite file; empty where it exports.

    A program of several lengths is exported at its recorded one.
    """
    program = program.at()
    found = [_wide(program, value.name) for value in (*program.values, *program.constants)]
    for operation in program.operations:
        found += [_sentence(operation, problem) for problem in _problems(program, operation)]
    return [sentence for sentence in found if sentence]


def _wide(program: IntegerProgram, name: str) -> str:
    grid = program.value(name).grid
    if not isinstance(grid, Grid) or grid.bits <= 8:
        return ""
    return (
        f"value {name!r} has codes of {grid.bits} bits, and LiteRT's kernels that compute equal codes take 8; quantize "
        "its activations to at most 8 bits."
    )


def _sentence(operation: Operation, problem: str) -> str:
    origin = f" (from {operation.source})" if operation.source else ""
    return f"{type(operation).__name__} {operation.name!r}{origin}: LiteRT {problem}."


def _problems(program: IntegerProgram, operation: Operation) -> Iterator[str]:
    if not isinstance(operation, _SUPPORTED):
        yield _REMEDIES.get(type(operation), "has no integer kernel for it; export for onnxruntime")
        return
    rank = len(program.value(operation.output).shape)
    if rank > 4:
        yield (
            f"runs integer kernels on up to 5 dimensions with the batch, and {operation.output!r} has {rank + 1}; "
            "join some by a reshape"
        )
    match operation:
        case ops.Conv() | ops.AveragePool() | ops.MaxPool() if len(operation.kernel_size) > 2:
            yield "has integer windows over one or two dimensions; fold a third into the batch"
        case ops.MaxPool() if set(operation.dilation) != {1}:
            yield f"has no max pool with dilation {operation.dilation}; use dilation 1"
        case ops.Add() if not isinstance(operation.factors, HalfUpMultipliers):
            yield f"rounds additions half up; {_MISSING}"
        case ops.Mul() | ops.Requantize() if not operation.rounds_first:
            yield f"rounds a product before it adds the zero point; {_MISSING}"
    multiplier = getattr(operation, "multiplier", None)
    if multiplier is not None:
        low, high = _PRODUCTS if isinstance(operation, ops.Mul | ops.Requantize) else _SUMS
        exponents = multiplier.exponent + 24
        if int(exponents.min()) <= low or int(exponents.max()) > high:
            yield (
                f"takes rescaling factors of 2^{low} to below 2^{high}, and this one has "
                f"2^{int(exponents.min()) - 1} to 2^{int(exponents.max())}; look for a range that collapsed"
            )
