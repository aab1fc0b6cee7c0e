"""A program as the bytes of a TensorFlow Lite file."""

import json

import numpy

from qat.emitters.litert import orders
from qat.emitters.litert.forms import FORMS
from qat.emitters.litert.forms.tables import cast
from qat.emitters.litert.forms.transposed import transposed_convolution
from qat.emitters.litert.limits import offset_of
from qat.emitters.litert.metadata import NAME as METADATA
from qat.emitters.litert.metadata import metadata, with_labels
from qat.emitters.litert.model import MAX_BYTES, schema
from qat.emitters.litert.reading import EDGES
from qat.emitters.litert.refusals import refusals
from qat.emitters.litert.transposed import spreads
from qat.emitters.litert.writer import Writer
from qat.emitters.options import ExportOptions
from qat.emitters.refused import RefusedError
from qat.errors import ExportError
from qat.integer.program import Input, IntegerProgram, Output
from qat.integer.unrolled import unrolled
from qat.integer.values import IndexRange

DESCRIPTION = "integer program of lightning-qat"


def build(program: IntegerProgram, options: ExportOptions, real: bool = False) -> bytes:
    """The file of `program` at its recorded length. real: the float32 network behind it instead."""
    if found := refusals(program):
        raise RefusedError("litert", found)
    program = unrolled(program.at())
    writer = Writer(program, real, options.unpacked_weights)
    inputs = {edge.name: _input(writer, edge, options.channels_last) for edge in program.inputs}
    found = spreads(program)
    left_out = {name for spread in found.values() for name in spread.steps}
    for operation in program.operations:
        if operation.name in found:
            transposed_convolution(writer, operation, found[operation.name])
        elif operation.name not in left_out:
            FORMS[type(operation)](writer, operation)
    outputs = {}
    for edge in program.outputs:
        outputs[edge.name] = _output(writer, edge, set(inputs.values()) | set(outputs.values()))
    last = {edge.name for edge in program.inputs if _channels_last(writer, edge, options.channels_last)}
    writer.model.attach(EDGES, _edges(program, last))
    writer.model.attach(METADATA, metadata(list(inputs), list(outputs), options.labels))
    content = with_labels(writer.model.to_bytes(inputs, outputs, DESCRIPTION), options.labels)
    if len(content) > MAX_BYTES:
        raise ExportError(
            f"the file would take {len(content)} bytes, and a .tflite file holds at most {MAX_BYTES}, as its offsets "
            "have 31 bits; quantize the weights to fewer bits, or export for onnxruntime."
        )
    return content


def _edges(program: IntegerProgram, last: set[str]) -> bytes:
    """Which inputs have channels last, and what is added to codes in the tensors of edges that carry such."""
    described = {}
    for edge in (*program.inputs, *program.outputs):
        grid = program.value(edge.value).grid
        offset = offset_of(grid) - grid.unsigned_offset if edge.codes else 0
        described[edge.name] = {"codes": edge.codes, "channels_last": edge.name in last, "offset": offset}
    return json.dumps(described, sort_keys=True).encode()


def _channels_last(writer: Writer, edge: Input, asked: bool) -> bool:
    return asked and edge.image is None and len(writer.shape(edge.value)) == 3


def _input(writer: Writer, edge: Input, channels_last: bool) -> int:
    """The tensor of an input, quantized behind it where it takes real numbers."""
    name, grid, shape = edge.value, writer.grid(edge.value), writer.shape(edge.value)
    last = _channels_last(writer, edge, channels_last)
    order = orders.channels_last(len(shape)) if last else orders.usual(len(shape))
    sizes = orders.permuted(shape, order)
    if isinstance(grid, IndexRange):
        tensor = writer.model.tensor(edge.name, sizes, numpy.int64)
        writer.place(name, cast(writer, tensor, numpy.int32, f"{edge.name}/i"), order)
        return tensor
    if writer.real:
        tensor = writer.model.tensor(edge.name, sizes, numpy.float32)
        writer.place(name, tensor, order)
        return tensor
    if edge.image is not None:
        scaling = writer.scaling(name, grid.zero_point)
        tensor = writer.model.tensor(edge.name, sizes, numpy.uint8, scaling)
        writer.quantize(tensor, writer.made(name, order))
        return tensor
    if edge.codes:
        tensor = writer.tensor(name, order, edge.name)
        writer.place(name, tensor, order)
        return tensor
    tensor = writer.model.tensor(edge.name, sizes, numpy.float32)
    writer.clamped(
        name, order, grid.quant_min, grid.quant_max, lambda target, _: writer.quantize(tensor, target), fuses=False
    )
    return tensor


def _output(writer: Writer, edge: Output, taken: set[int]) -> int:
    """The tensor of an output, dequantized where it gives real numbers."""
    source = writer.read(edge.value)
    shape = writer.model.shape(source)
    if writer.holds_indices(edge.value):
        return cast(writer, source, numpy.int64, edge.name)
    if writer.real or edge.codes:
        if source not in taken:
            writer.model.tensors[source].name = edge.name
            return source
        copy = writer.like(edge.value, edge.name, shape)
        writer.reshape(source, copy, shape)
        return copy
    tensor = writer.model.tensor(edge.name, shape, numpy.float32)
    writer.model.operator("DEQUANTIZE", [source], [tensor], schema.DequantizeOptionsT())
    return tensor
