"""Arithmetic of int64 indices, and choices by them."""

import numpy

from qat.emitters.onnxruntime.graph import array_of
from qat.emitters.onnxruntime.writer import Writer, tensor_of
from qat.integer.operations import CumulativeSum, Gather, IndexProduct, IndexSum, IndexTable


def table(writer: Writer, operation: IndexTable) -> None:
    """Gather of the table's entries."""
    target = tensor_of(operation.output)
    entries = writer.graph.constant(f"{target}/table", array_of(operation.codes), numpy.int64)
    writer.graph.node("Gather", [entries, tensor_of(operation.inputs[0])], target, axis=0)


def add(writer: Writer, operation: IndexSum) -> None:
    """Add."""
    writer.graph.node("Add", [tensor_of(name) for name in operation.inputs], tensor_of(operation.output))


def multiply(writer: Writer, operation: IndexProduct) -> None:
    """Mul."""
    writer.graph.node("Mul", [tensor_of(name) for name in operation.inputs], tensor_of(operation.output))


def cumulate(writer: Writer, operation: CumulativeSum) -> None:
    """CumSum."""
    target = tensor_of(operation.output)
    axis = writer.graph.constant(f"{target}/axis", operation.dim, numpy.int64)
    writer.graph.node("CumSum", [tensor_of(operation.inputs[0]), axis], target)


def gather(writer: Writer, operation: Gather) -> None:
    """GatherElements."""
    values, indices = map(tensor_of, operation.inputs)
    writer.graph.node("GatherElements", [values, indices], tensor_of(operation.output), axis=operation.dim)
