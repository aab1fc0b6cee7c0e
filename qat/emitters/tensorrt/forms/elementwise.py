"""Arithmetic element by element, and functions that are looked up."""

import math

import numpy
from onnx import TensorProto

from qat.emitters.onnxruntime.graph import array_of
from qat.emitters.tensorrt.writer import Writer, codes_of
from qat.integer.operations import Add, Mul, Requantize, Table
from qat.integer.values import IndexRange


def add(writer: Writer, operation: Add) -> None:
    """Add of two values, each dequantized by its own factor of the sum, which float32 adds without rounding."""
    factors, operands = operation.factors, []
    for end, factor, source in zip(("first", "second"), (factors.first, factors.second), operation.inputs, strict=True):
        ratio = math.ldexp(factor, -factors.shift)
        operand = writer.scaled(source, ratio, f"{operation.name}/{end}")
        operands.append(_read_as_codes(writer, operand) if writer.is_kept_for_sums(source) else operand)
    total = writer.graph.node("Add", operands, f"{operation.name}/sums")
    ties_agree = writer.grid(operation.output).unsigned_offset % 2 == 0
    writer.finish(total if ties_agree else writer.rounded(total, operation.output), operation)


def _read_as_codes(writer: Writer, operand: str) -> str:
    """What a DequantizeLinear made, negated twice, so that it is made where it is read.

    Of a value that norms and sums read alone, TensorRT-RTX (1.7) otherwise moves the DequantizeLinear into the kernel
    that makes the value, and keeps float32 in memory, four times as much, from there to the next sum.
    """
    return writer.graph.node("Neg", [writer.graph.node("Neg", [operand], f"{operand}/negative")], f"{operand}/kept")


def multiply(writer: Writer, operation: Mul) -> None:
    """Mul of two values, and by the multiplier."""
    name = operation.name
    product = writer.graph.node("Mul", [writer.units(source) for source in operation.inputs], f"{name}/product")
    factor = operation.multiplier.to_float().item()
    multiplier = writer.graph.constant(f"{name}/multiplier", factor, numpy.float32)
    scaled = writer.graph.node("Mul", [product, multiplier], f"{name}/scaled")
    writer.finish(scaled if operation.rounds_first else writer.rounded(scaled, operation.output), operation)


def requantize(writer: Writer, operation: Requantize) -> None:
    """Codes dequantized by the factor between the grids; only clamped where they stay what they are."""
    source = operation.inputs[0]
    if operation.is_clamp(writer.grid(source), writer.grid(operation.output)):
        writer.finish(writer.units(source), operation)
        return
    scaled = writer.scaled(source, operation.multiplier.to_float().item(), f"{operation.name}/scaled")
    if operation.factor < 0:
        scaled = writer.graph.node("Neg", [scaled], f"{operation.name}/negative")
    writer.finish(scaled if operation.rounds_first else writer.rounded(scaled, operation.output), operation)


def table(writer: Writer, operation: Table) -> None:
    """Gather of the codes of the result, which are int8 weights of a kind, by the code of the source."""
    source, name, codes = operation.inputs[0], operation.name, array_of(operation.codes)
    places = codes_of(source)
    if not isinstance(writer.grid(source), IndexRange):
        first = writer.constant(
            f"limit/{-writer.grid(source).quant_min!r}", -writer.grid(source).quant_min, numpy.float32
        )
        counted = writer.graph.node("Add", [writer.units(source), first], f"{name}/counted")
        places = writer.graph.node("Cast", [counted], f"{name}/places", to=TensorProto.INT32)
    if codes.ndim == 2:
        rank = len(writer.shape(source))
        firsts = numpy.arange(0, codes.size, codes.shape[1]).reshape(1, -1, *[1] * (rank - 1))
        dtype = numpy.int64 if writer.holds_indices(source) else numpy.int32
        of_channels = writer.graph.constant(f"{name}/firsts", firsts, dtype)
        places = writer.graph.node("Add", [places, of_channels], f"{name}/of_channels")
    stored = writer.graph.constant(f"{name}/codes", codes.reshape(-1), numpy.int8)
    entries = writer.graph.node("DequantizeLinear", [stored, *writer.scale(1.0)], f"{name}/entries")
    found = writer.graph.node("Gather", [entries, places], f"{name}/found", axis=0)
    writer.quantized(found, operation.output)
