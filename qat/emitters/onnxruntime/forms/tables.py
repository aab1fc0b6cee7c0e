"""Results that are looked up."""

import numpy
from onnx import TensorProto

from qat.emitters.onnxruntime.graph import array_of
from qat.emitters.onnxruntime.writer import Writer, tensor_of
from qat.integer.operations import Embedding, Table


def table(writer: Writer, operation: Table) -> None:
    """GatherElements, for which codes and table are flat.

    A million codes took 1.1 ms in one thread of ONNX Runtime 1.32, with Gather 4.9.
    """
    source, target, graph = operation.inputs[0], tensor_of(operation.output), writer.graph
    grid, shape = writer.grid(source), writer.shape(source)
    # Tensors hold code + offset, which for some grids begins above 0: those entries are never asked for.
    unused = grid.quant_min + writer.offset(source)
    entries = array_of(operation.codes).astype(numpy.int64) + writer.offset(operation.output)
    entries = numpy.pad(entries, [(0, 0)] * (entries.ndim - 1) + [(unused, 0)], mode="edge")
    places = tensor_of(source)
    if not writer.holds_indices(source):
        places = graph.node("Cast", [places], f"{target}/places", to=TensorProto.INT32)
    if entries.ndim == 2:
        dtype = numpy.int64 if writer.holds_indices(source) else numpy.int32
        firsts = numpy.arange(0, entries.size, entries.shape[1]).reshape(1, -1, *[1] * (len(shape) - 1))
        places = graph.node("Add", [places, graph.constant(f"{target}/firsts", firsts, dtype)], f"{target}/of_channels")
    flat = writer.reshape(places, f"{target}/flat", (-1,))
    looked_up = graph.constant(f"{target}/table", entries.reshape(-1), numpy.uint8)
    found = graph.node("GatherElements", [looked_up, flat], f"{target}/found", axis=0)
    writer.reshape(found, target, (-1, *shape))


def embedding(writer: Writer, operation: Embedding) -> None:
    """Gather of int8 rows, to which 128 is added, which wraps around: s8 + 128 as u8. A Linear with the same weight
    shares it."""
    graph, target = writer.graph, tensor_of(operation.output)
    weight = graph.weight(f"{operation.name}/weight", operation.weight)
    rows = graph.node("Gather", [weight, tensor_of(operation.inputs[0])], f"{target}/rows", axis=0)
    wrapped = graph.node("Cast", [rows], f"{target}/wrapped", to=TensorProto.UINT8)
    top = graph.constant(f"{target}/top_bit", 128, numpy.uint8)
    graph.node("Add", [wrapped, top], target)
