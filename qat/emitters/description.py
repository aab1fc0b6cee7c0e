"""What a file says of itself, whatever its format: where it is from, its edges, its layers, its labels."""

from collections.abc import Sequence
from typing import Any

import qat
from qat.integer.interpreter import edge_dtype
from qat.integer.program import Input, IntegerProgram, Output
from qat.integer.storage import digest
from qat.integer.values import IndexRange

PRODUCER = "lightning-qat"


def description(program: IntegerProgram, labels: Sequence[str] = ()) -> dict[str, Any]:
    """The description of a file of `program`; equal programs and labels have equal ones.

    producer        {"name", "version"} of what wrote the file
    program_sha256  the "sha256" of the program.json that the file was made from
    inputs          by name: "dtype", and "scale" and "zero_point" of the codes that real numbers become (or "count" of
                    indices); of raw pictures also "mean", "std", "largest" and "layout"
    outputs         by name: the same
    weight_bits     by the name of each operation that has weights
    activation_bits by the name of each operation
    labels          names of the classes, in their order; only where there are any
    """
    layers = program.layers
    entries: dict[str, Any] = {
        "producer": {"name": PRODUCER, "version": qat.__version__},
        "program_sha256": digest(program),
        "inputs": {edge.name: edge_description(program, edge) for edge in program.inputs},
        "outputs": {edge.name: edge_description(program, edge) for edge in program.outputs},
        "weight_bits": {layer.name: layer.weight_bits for layer in layers if layer.weight_bits is not None},
        "activation_bits": {layer.name: layer.activation_bits for layer in layers},
    }
    return entries | ({"labels": list(labels)} if labels else {})


def edge_description(program: IntegerProgram, edge: Input | Output) -> dict[str, Any]:
    """An input or an output, as `description` says."""
    grid = program.value(edge.value).grid
    entry: dict[str, Any] = {"dtype": str(edge_dtype(grid, edge.codes)).removeprefix("torch.")}
    if isinstance(grid, IndexRange):
        return entry | {"count": grid.count}
    entry |= {"scale": grid.scale, "zero_point": grid.zero_point + grid.unsigned_offset}
    image = getattr(edge, "image", None)
    if image is not None:
        layout = "channels_last" if image.channels_last else "channels_first"
        entry |= {"mean": list(image.mean), "std": list(image.std), "largest": image.largest, "layout": layout}
    return entry
