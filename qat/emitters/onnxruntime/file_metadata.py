"""What a file says of itself, as ONNX metadata: texts by name, each of them JSON.

producer        {"name", "version"} of what wrote the file
program_sha256  the "sha256" of the program.json that the file was made from
inputs          by name: "dtype", and "scale" and "zero_point" of the codes that real numbers become (or "count" of
                indices); of raw pictures also "mean", "std", "largest" and "layout"
outputs         by name: the same
layers          a list, in order: "name", "kind", "weight_bits" (null without weights), "activation_bits"
labels          names of the classes, in their order; only where there are any
"""

import json
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import onnx

import qat
from qat.emitters.onnxruntime.graph import PRODUCER
from qat.errors import ExportError
from qat.integer.interpreter import edge_dtype
from qat.integer.program import Input, IntegerProgram, Output
from qat.integer.storage import digest
from qat.integer.values import IndexRange


def described(program: IntegerProgram, labels: Sequence[str] = ()) -> dict[str, str]:
    """The metadata of the file of `program`; equal programs and labels have equal ones. labels: names of classes."""
    layers = program.layers
    entries = {
        "producer": {"name": PRODUCER, "version": qat.__version__},
        "program_sha256": digest(program),
        "inputs": {edge.name: _edge(program, edge) for edge in program.inputs},
        "outputs": {edge.name: _edge(program, edge) for edge in program.outputs},
        "weight_bits": {layer.name: layer.weight_bits for layer in layers if layer.weight_bits is not None},
        "activation_bits": {layer.name: layer.activation_bits for layer in layers},
    }
    if labels:
        entries["labels"] = list(labels)
    return {name: json.dumps(entry, separators=(",", ":")) for name, entry in entries.items()}


def metadata(path: str | PathLike) -> dict[str, Any]:
    """What the file at `path` says of itself, by the names above; of a file of another producer its texts.

    Raises `ExportError` where there is no ONNX file.
    """
    if not Path(path).is_file():
        raise ExportError(f"{path} does not exist, or is no file; give the path that the program was exported to.")
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's errors share no base with others
        raise ExportError(f"{path} is no ONNX file ({error}); export the program again.") from error
    found = {}
    for entry in model.metadata_props:
        try:
            found[entry.key] = json.loads(entry.value)
        except ValueError:  # a plain text that somebody else put there
            found[entry.key] = entry.value
    return found


def _edge(program: IntegerProgram, edge: Input | Output) -> dict[str, Any]:
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
