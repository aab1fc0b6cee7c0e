"""LiteRT interpreters: how a file is opened and run, what it holds, and what of it XNNPACK runs."""

import contextlib
import functools
import importlib.metadata
import json
import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy
import torch
from ai_edge_litert import interpreter as litert
from torch import Tensor

from qat.emitters.litert import reading
from qat.errors import ExportError
from qat.integer.interpreter import edge_dtype
from qat.integer.program import IntegerProgram

#: Processor features that decide which integer kernels XNNPACK takes.
CPU_FEATURES = {"avx2", "avx512f", "avx512bw", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm", "sve"}


#: What callers have at edges that carry codes, by the type of the tensor (`qat.integer.interpreter.edge_dtype`).
_OF_CODES = {numpy.dtype(numpy.int8): torch.uint8, numpy.dtype(numpy.int16): torch.int32}


@dataclass
class Session:
    """An interpreter of one file. inputs, outputs: their details by name. edges: what the file says of each.

    shapes: of the inputs that tensors are allocated for, by name.
    """

    path: Path
    interpreter: litert.Interpreter
    inputs: dict[str, dict]
    outputs: dict[str, dict]
    edges: dict[str, dict]
    shapes: dict[str, tuple[int, ...]]


def runtime_version() -> str:
    """The version of LiteRT."""
    return importlib.metadata.version("ai-edge-litert")


def session_conditions() -> dict[str, object]:
    """What results of this runtime on this machine hold for; part of a report."""
    return {
        "litert": runtime_version(),
        "delegate": "XNNPACK",
        "threads": 1,
        "processor": platform.machine(),
        "processor_features": sorted(_cpu_features()),
    }


@functools.cache
def _cpu_features() -> frozenset[str]:
    description = Path("/proc/cpuinfo")
    words = description.read_text().split() if description.exists() else ()
    return frozenset(CPU_FEATURES.intersection(words))


def open_session(path: str | PathLike, threads: int = 1) -> Session:
    """An interpreter with XNNPACK, its default. Raises `ExportError` for a file that is missing or damaged."""
    path = Path(path)
    model = reading.read(path)
    try:
        with _quietly():
            opened = litert.Interpreter(model_path=str(path), num_threads=threads)
            opened.allocate_tensors()
        runner = opened.get_signature_runner()
    except (ValueError, RuntimeError, TypeError) as error:
        reason = str(error).strip().partition("\n")[0][:200]
        raise ExportError(f"LiteRT cannot load {path} ({reason}); export the program again.") from error
    edges = json.loads(reading.entry(model, reading.EDGES) or b"{}")
    inputs = runner.get_input_details()
    shapes = {name: tuple(detail["shape"].tolist()) for name, detail in inputs.items()}
    return Session(path, opened, inputs, runner.get_output_details(), edges, shapes)


def run_session(session: Session, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Outputs by name, of inputs by name, in the dtypes of their edges. Codes are counted from 0, in the network's own
    layout, whatever the file has."""
    interpreter = session.interpreter
    arrays = {name: _to_file(session, name, tensor) for name, tensor in inputs.items()}
    held = [(session.inputs[name], array) for name, array in arrays.items()]
    try:
        shapes = {name: array.shape for name, array in arrays.items()}
        if shapes != session.shapes:
            session.shapes = {}
            for detail, array in held:
                interpreter.resize_tensor_input(detail["index"], array.shape)
            interpreter.allocate_tensors()
            session.shapes = shapes
        for detail, array in held:
            interpreter.set_tensor(detail["index"], array)
        interpreter.invoke()
    except (ValueError, RuntimeError) as error:
        shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in inputs.items())
        reason = str(error).strip().partition("\n")[0][:300]
        raise ExportError(f"LiteRT {runtime_version()} fails on inputs of {shapes} ({reason}).") from error
    return {
        name: _from_file(session, name, interpreter.get_tensor(detail["index"]))
        for name, detail in session.outputs.items()
    }


def _to_file(session: Session, name: str, tensor: Tensor) -> numpy.ndarray:
    edge = session.edges.get(name, {})
    if edge.get("channels_last"):
        tensor = tensor.movedim(1, -1)
    dtype = numpy.dtype(session.inputs[name]["dtype"])
    if edge.get("codes") and dtype in _OF_CODES:
        tensor = tensor.to(torch.int32) + edge["offset"]
    return numpy.ascontiguousarray(tensor.numpy().astype(dtype))


def _from_file(session: Session, name: str, array: numpy.ndarray) -> Tensor:
    edge = session.edges.get(name, {})
    tensor = torch.from_numpy(numpy.atleast_1d(array).copy())
    if edge.get("codes") and array.dtype in _OF_CODES:
        return (tensor.to(torch.int32) - edge["offset"]).to(_OF_CODES[array.dtype])
    return tensor


def check_edges(session: Session, program: IntegerProgram, path: str | PathLike) -> None:
    """Refuse a session whose inputs and outputs are not those of `program`."""
    program = program.at()
    found, wanted = [], []
    for details, edges in ((session.inputs, program.inputs), (session.outputs, program.outputs)):
        found.append(", ".join(sorted(_described(session, name, detail) for name, detail in details.items())))
        described = []
        for edge in edges:
            value = program.value(edge.value)
            dtype = edge_dtype(value.grid, edge.codes)
            described.append(f"{edge.name} {str(dtype).removeprefix('torch.')} {tuple(value.shape)}")
        wanted.append(", ".join(sorted(described)))
    if found != wanted:
        raise ExportError(
            f"{path} is the file of another program: it makes {found[1]} of {found[0]}, and the program makes "
            f"{wanted[1]} of {wanted[0]}; export the program to it."
        )


def _described(session: Session, name: str, detail: dict) -> str:
    """An edge as callers of `run_session` see it."""
    shape, edge = [int(size) for size in detail["shape"][1:]], session.edges.get(name, {})
    if edge.get("channels_last"):
        shape = [shape[-1], *shape[:-1]]
    dtype = numpy.dtype(detail["dtype"])
    kind = str(_OF_CODES[dtype]).removeprefix("torch.") if edge.get("codes") and dtype in _OF_CODES else dtype.name
    return f"{name} {kind} {tuple(shape)}"


def delegated_ops(path: str | PathLike) -> tuple[list[str], list[str]]:
    """(kinds of operators that XNNPACK runs, kinds of those that LiteRT's own kernels run), in order."""
    details = open_session(path).interpreter._get_ops_details()
    makers = {int(tensor): detail for detail in details if not _delegates(detail) for tensor in detail["outputs"]}
    inside = set()
    for part in filter(_delegates, details):
        known, wanted = set(map(int, part["inputs"])), list(map(int, part["outputs"]))
        while wanted:
            maker = makers.get(wanted.pop())
            if maker is not None and maker["index"] not in inside:
                inside.add(maker["index"])
                wanted += set(map(int, maker["inputs"])) - known
    kinds = ([], [])
    for detail in details:
        if not _delegates(detail):
            kinds[detail["index"] not in inside].append(detail["op_name"])
    return kinds


def _delegates(detail: dict) -> bool:
    return detail["op_name"] == "DELEGATE"


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """The runtime prints, once a process, that it has a delegate."""
    saved = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
            yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
