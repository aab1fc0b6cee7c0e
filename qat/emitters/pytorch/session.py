"""Exported files run by torch on this processor."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from qat.emitters.pytorch.archive import read
from qat.errors import ExportError
from qat.integer.interpreter import edge_dtype
from qat.integer.kernels.matrices import int8_matmul_is_exact
from qat.integer.lengths import Length
from qat.integer.program import IntegerProgram


@dataclass(frozen=True)
class Session:
    """A loaded file. module: its graph. inputs, outputs: their names, in order. edges: both as text."""

    module: nn.Module
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    edges: tuple[list[str], list[str]]


def open_session(path: str | PathLike) -> Session:
    """The file at `path`, ready to run.

    Raises `ExportError` for a file that is missing, damaged, or of another origin, and for one with products of int8
    matrices on a processor whose product saturates.
    """
    return session_of(*read(path), path)


def session_of(graph: ExportedProgram, described: Mapping[str, Any], path: str | PathLike) -> Session:
    """As `open_session`, of a graph and its description. path: where they are from."""
    if not int8_matmul_is_exact() and any(node.target is torch.ops.aten._int_mm.default for node in graph.graph.nodes):
        raise ExportError(
            f"{path} multiplies int8 matrices, whose sums saturate on this processor; export the program again here."
        )
    inputs, outputs = tuple(described["inputs"]), tuple(described["outputs"])
    return Session(graph.module(), inputs, outputs, _edges(graph, inputs, outputs))


def run_session(session: Session, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Outputs by name, in the dtypes of their edges. inputs: by name, in theirs."""
    with torch.no_grad():
        results = session.module(*(inputs[name] for name in session.inputs))
    if isinstance(results, Tensor):
        results = (results,)
    return dict(results) if isinstance(results, dict) else dict(zip(session.outputs, results, strict=True))


def check_edges(session: Session, program: IntegerProgram, path: str | PathLike) -> None:
    """Refuse a session whose inputs and outputs are not those of `program`, or of it at the recorded length."""
    if session.edges not in (_wanted(program), _wanted(program.at())):
        found, wanted = (", ".join(text) for text in session.edges), (", ".join(text) for text in _wanted(program))
        (takes, makes), (taken, made) = found, wanted
        raise ExportError(
            f"{path} is the file of another program: it makes {makes} of {takes}, and the program makes {made} of "
            f"{taken}; export the program to it."
        )


def session_conditions() -> dict[str, object]:
    """What results of this runtime on this machine hold for; part of a report."""
    return {
        "torch": torch.__version__,
        "processor": platform.machine(),
        "processor_capability": torch.backends.cpu.get_cpu_capability(),
        "int8_matmul": "torch._int_mm" if int8_matmul_is_exact() else "int32 sums",
    }


def _edges(graph: ExportedProgram, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> tuple[list[str], list[str]]:
    nodes = {node.name: node for node in graph.graph.nodes}
    signature = graph.graph_signature
    return tuple(
        [_described(name, nodes[node].meta["val"].dtype, nodes[node].meta["val"].shape[1:]) for name, node in pairs]
        for pairs in (
            zip(inputs, signature.user_inputs, strict=True),
            zip(outputs, signature.user_outputs, strict=True),
        )
    )


def _wanted(program: IntegerProgram) -> tuple[list[str], list[str]]:
    found = []
    for edges in (program.inputs, program.outputs):
        values = [program.value(edge.value) for edge in edges]
        found.append(
            [
                _described(edge.name, edge_dtype(value.grid, edge.codes), value.shape)
                for edge, value in zip(edges, values, strict=True)
            ]
        )
    return tuple(found)


def _described(name: str, dtype: torch.dtype, shape) -> str:
    """An input or output; a size that follows a length is an asterisk."""
    varies = (isinstance(size, Length) or not isinstance(size, int) for size in shape)
    sizes = ", ".join("*" if free else str(int(size)) for size, free in zip(shape, varies, strict=True))
    return f"{name} {str(dtype).removeprefix('torch.')} ({sizes})"
