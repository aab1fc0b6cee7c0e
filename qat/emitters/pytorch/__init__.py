"""The emitter for PyTorch: the graph of the program's module as a .pt2 file, which torch runs without this package.

`torch.export.load(path).module()` computes it on a processor, for any batch size, and for every length of its inputs
where torch.export can follow; other files take the recorded length. Weights lie in the file at their true width and are
unpacked in every run. What is compared with the interpreter before the file gets its name is that file.

The graph is that of a processor. For a GPU, move the module (`program.to_module().to("cuda")`) and export it there.
"""

from os import PathLike
from pathlib import Path

import torch

from qat.emitters.description import description
from qat.emitters.options import DEFAULTS, ExportOptions
from qat.emitters.pytorch.archive import archived, read
from qat.emitters.pytorch.floating import emit_float
from qat.emitters.pytorch.graph import exported
from qat.emitters.pytorch.readback import float_nodes, float_ops, operations
from qat.emitters.pytorch.session import check_edges, open_session, run_session, session_conditions, session_of
from qat.emitters.refused import Refusal, RefusedError
from qat.emitters.samples import outputs_by_name, random_inputs
from qat.emitters.single_file import files_of, stored_bytes
from qat.errors import ExportError
from qat.files import written_whole
from qat.integer.program import IntegerProgram

__all__ = [
    "check", "check_edges", "emit", "emit_float", "files_of", "float_ops", "metadata", "open_session",
    "operations", "refusals", "run_session", "session_conditions", "stored_bytes",
]  # fmt: skip


def refusals(program: IntegerProgram) -> list[Refusal]:
    """What a file of integers has no form for; empty where `emit` will write the program."""
    return [Refusal.of_island(island) for island in program.float_operations]


def emit(program: IntegerProgram, path: str | PathLike, options: ExportOptions = DEFAULTS) -> None:
    """Write `program` as a .pt2 file. Raises `ExportError`, and writes none, where it is not integer or not equal."""
    if refused := refusals(program):
        raise RefusedError("pytorch", refused)
    made, graph = exported(program)
    with written_whole(Path(path), archived(graph, description(program, options.labels))) as temporary:
        check(made, temporary)


def check(program: IntegerProgram, path: str | PathLike) -> None:
    """Refuse a file that computes in real numbers, or other codes than the interpreter on random ones."""
    graph, described = read(path)
    if floats := float_nodes(graph):
        raise ExportError(f"torch would compute {len(floats)} nodes in floating point: {', '.join(floats[:5])}.")
    session = session_of(graph, described, path)
    for inputs in random_inputs(program):
        results = run_session(session, inputs)
        for name, real in outputs_by_name(program, inputs).items():
            differing = int((results[name] != real).sum())
            if differing:
                raise ExportError(
                    f"torch {torch.__version__} gives other codes than the program for {differing} of {real.numel()} "
                    f"elements of output {name!r}; its kernels for this processor compute otherwise."
                )


def metadata(path: str | PathLike) -> dict:
    """What the file at `path` says of itself, as `emitters.description` has it."""
    return read(path)[1]
