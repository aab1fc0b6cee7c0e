"""Arithmetic element by element, by the runtime's own quantized kernels."""

import math

import numpy

from qat.emitters.onnxruntime.writer import MICROSOFT, Writer, refused, tensor_of
from qat.emitters.refused import Refusal
from qat.integer.operations import Add, Mul, Requantize
from qat.integer.values import Grid, float32

#: float32 to int32 conversion of the runtime's elementwise product overflows at 2^31 instead of saturating.
PRODUCT_LIMIT = 2**30


def add(writer: Writer, operation: Add) -> None:
    """QLinearAdd. Its scales only enter as ratios to the output's, here the program's exact factors over 1."""
    factors, name = operation.factors, operation.name
    operands = []
    for end, factor, source in zip(("first", "second"), (factors.first, factors.second), operation.inputs, strict=True):
        ratio = writer.graph.constant(f"{name}/{end}_ratio", math.ldexp(factor, -factors.shift), numpy.float32)
        operands += [tensor_of(source), ratio, writer.grid_constants(source)[1]]
    one = writer.graph.constant(f"{name}/one", 1.0, numpy.float32)
    writer.limited("QLinearAdd", [*operands, one, writer.grid_constants(operation.output)[1]], operation, MICROSOFT)


def multiply(writer: Writer, operation: Mul) -> None:
    """QLinearMul."""
    _check_product(writer, operation, [writer.grid(name) for name in operation.inputs])
    operands = []
    for source in operation.inputs:
        operands += [tensor_of(source), *writer.grid_constants(source)]
    writer.limited("QLinearMul", [*operands, *writer.grid_constants(operation.output)], operation, MICROSOFT)


def requantize(writer: Writer, operation: Requantize) -> None:
    """Clip where codes stay what they are, else a QLinearMul by 1 or -1 that has the factor as its scale."""
    source, target = writer.grid(operation.inputs[0]), writer.grid(operation.output)
    codes, name = tensor_of(operation.inputs[0]), operation.name
    if operation.is_clamp(source, target) and source.unsigned_offset == target.unsigned_offset:
        offset = target.unsigned_offset
        limits = operation.clamp_min + offset, operation.clamp_max + offset
        writer.clip(codes, tensor_of(operation.output), *limits)
        return
    _check_product(writer, operation, [source])
    code, zero_point = (1, 0) if operation.factor > 0 else (0, 1)
    sign = [
        writer.graph.constant(f"{name}/sign", [code], numpy.uint8),
        writer.graph.constant(f"{name}/factor", float32(abs(operation.factor)), numpy.float32),
        writer.graph.constant(f"{name}/sign_zero_point", zero_point, numpy.uint8),
    ]
    operands = [codes, *writer.grid_constants(operation.inputs[0]), *sign, *writer.grid_constants(operation.output)]
    writer.limited("QLinearMul", operands, operation, MICROSOFT)


def _check_product(writer: Writer, operation: Mul | Requantize, grids: list[Grid]) -> None:
    largest = math.prod(max(map(abs, grid.reach)) for grid in grids) * operation.multiplier.to_float().max().item()
    if largest >= PRODUCT_LIMIT:
        raise refused(
            Refusal.of(
                operation,
                f"ONNX Runtime computes up to {PRODUCT_LIMIT} steps of an output",
                "look for a range that collapsed",
                f"here are {largest:.3g}",
            )
        )
