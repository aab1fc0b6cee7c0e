"""Real programs on disk: real_program.json (nodes) and real_program.safetensors (packed codes, scales, constants).

As `qat.integer.storage`: no time and no path in the bytes, no pickle, both files under temporary names first, and
nothing is trusted when it is read.
"""

import dataclasses
import hashlib
import json
import math
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from qat.errors import ProgramError
from qat.files import written_whole
from qat.integer.packing import pack, unpack
from qat.integer.storage import MAX_JSON_BYTES, MAX_TENSORS_BYTES
from qat.real.nodes import Argument, RealInput, RealNode, RealOutput, Ref
from qat.real.program import RealProgram
from qat.real.weights import RealWeight

VERSION = 1
JSON_NAME, TENSORS_NAME = "real_program.json", "real_program.safetensors"
#: How a `Ref` is written.
_REF = "ref"
_MAX_DEPTH = 4
_PLAIN = ("activations", "storage", "output_structure")
_WEIGHT_FIELDS = ("bits", "midrise", "group_size", "shape", "axis")
_FIELDS = {"version", "inputs", "outputs", "nodes", "weights", *_PLAIN, "tensors_sha256", "sha256"}


def save(program: RealProgram, directory: str | PathLike) -> None:
    """Write both files into `directory`, which is made where there is none. Raises `ExportError` where it cannot be."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in program.constants.items():
        half = tensor.is_floating_point() and program.stored_as(tensor) == "float16"
        tensors[f"constant/{name}"] = (tensor.half() if half else tensor).contiguous().clone()
    for name, weight in program.weights.items():
        tensors[f"codes/{name}"] = pack(weight.codes, weight.bits)
        half = program.stored_as(weight.scale) == "float16"
        tensors[f"scale/{name}"] = (weight.scale.half() if half else weight.scale).contiguous().clone()
    content = save_tensors(dict(sorted(tensors.items())))
    document: dict[str, Any] = {
        "version": VERSION,
        "inputs": [dataclasses.asdict(edge) for edge in program.inputs],
        "outputs": [dataclasses.asdict(edge) for edge in program.outputs],
        "nodes": [_written(node) for node in program.nodes],
        "weights": {
            name: {field: getattr(weight, field) for field in _WEIGHT_FIELDS}
            for name, weight in program.weights.items()
        },
        **{field: getattr(program, field) for field in _PLAIN},
        "tensors_sha256": hashlib.sha256(content).hexdigest(),
    }
    document["sha256"] = _digest(document)
    text = (json.dumps(document, sort_keys=True, indent=1) + "\n").encode()
    directory = Path(directory)
    with written_whole(directory / JSON_NAME, text), written_whole(directory / TENSORS_NAME, content):
        pass


def load(directory: str | PathLike) -> RealProgram:
    """Read what `save` wrote. Raises `ProgramError` for anything else."""
    path = Path(directory) / JSON_NAME
    document = _parsed(path)
    content = _read(Path(directory) / TENSORS_NAME, MAX_TENSORS_BYTES)
    if hashlib.sha256(content).hexdigest() != document["tensors_sha256"]:
        raise ProgramError(f"{directory}: {TENSORS_NAME} is damaged, or not of this {JSON_NAME}; export both again.")
    try:
        tensors = load_tensors(content)
        weights = {name: _weight(name, entry, tensors) for name, entry in document["weights"].items()}
        constants = {key.partition("/")[2]: _real(value) for key, value in tensors.items() if key[:9] == "constant/"}
        return RealProgram(
            inputs=tuple(RealInput(**_tupled(entry)) for entry in document["inputs"]),
            outputs=tuple(RealOutput(**entry) for entry in document["outputs"]),
            nodes=tuple(_node(entry) for entry in document["nodes"]),
            weights=weights,
            constants=constants,
            **{field: document[field] for field in _PLAIN},
        )
    except (TypeError, KeyError, ValueError, AttributeError, SafetensorError, RuntimeError, RecursionError) as error:
        if isinstance(error, ProgramError):
            raise
        raise ProgramError(f"{path} is damaged ({str(error)[:100]}); export the program again.") from error


def _written(node: RealNode) -> dict[str, Any]:
    entry = {field.name: getattr(node, field.name) for field in dataclasses.fields(node)}
    return entry | {"arguments": {name: _encoded(argument) for name, argument in node.arguments}, "order": [
        name for name, _ in node.arguments
    ]}  # fmt: skip


def _encoded(argument: Argument):
    if isinstance(argument, Ref):
        return {_REF: argument.name}
    if isinstance(argument, tuple):
        return [_encoded(entry) for entry in argument]
    if isinstance(argument, float) and not math.isfinite(argument):
        return {"float": str(argument)}
    return argument


def _decoded(value, depth: int = 0) -> Argument:
    if depth > _MAX_DEPTH:
        raise ValueError("arguments are nested too deep")
    if isinstance(value, dict) and set(value) == {_REF} and isinstance(value[_REF], str):
        return Ref(value[_REF])
    if isinstance(value, dict) and value.get("float") in ("inf", "-inf", "nan"):
        return float(value["float"])
    if isinstance(value, list):
        return tuple(_decoded(entry, depth + 1) for entry in value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"an argument is {str(value)[:40]!r}")


def _node(entry: dict[str, Any]) -> RealNode:
    arguments, order = entry["arguments"], entry["order"]
    if sorted(arguments) != sorted(order):
        raise ValueError("arguments and their order do not agree")
    plain = {name: value for name, value in _tupled(entry).items() if name not in ("arguments", "order")}
    return RealNode(**plain, arguments=tuple((name, _decoded(arguments[name])) for name in order))


def _tupled(entry: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in entry.items()}


def _weight(name: str, entry: dict[str, Any], tensors: dict[str, Tensor]) -> RealWeight:
    if set(entry) != set(_WEIGHT_FIELDS) or entry["bits"] not in range(2, 9):
        raise ValueError(f"the weight {name[:80]!r} has other fields than {', '.join(_WEIGHT_FIELDS)}")
    shape = tuple(entry["shape"])
    channels = shape[entry["axis"]]
    codes = unpack(tensors[f"codes/{name}"], entry["bits"], (channels, math.prod(shape) // channels))
    return RealWeight(codes, _real(tensors[f"scale/{name}"]), **_tupled(entry))


def _real(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype == torch.float16 else tensor


def _parsed(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(_read(path, MAX_JSON_BYTES).decode())
    except (ValueError, RecursionError) as error:
        raise ProgramError(f"{path} is not readable json ({str(error)[:100]}); export the program again.") from error
    if not isinstance(document, dict) or set(document) != _FIELDS or document["version"] != VERSION:
        raise ProgramError(f"{path} is no real program of version {VERSION}; export the program again.")
    if document["sha256"] != _digest(document):
        raise ProgramError(f"{path} is damaged: its content does not have its digest; export it again.")
    return document


def _digest(document: dict) -> str:
    content = {key: value for key, value in document.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _read(path: Path, limit: int) -> bytes:
    try:
        if path.stat().st_size > limit:
            raise ProgramError(f"{path} has {path.stat().st_size} bytes, more than the {limit} that a program takes.")
        return path.read_bytes()
    except OSError as error:
        raise ProgramError(
            f"{path} cannot be read ({error.strerror}); give the directory a program was saved to."
        ) from error
