"""The emitter for ONNX Runtime: a QOperator file on uint8 codes, compared with the interpreter before it is named.

Weights take in the file the narrowest type that ONNX has: 2 bits each for 2-bit weights, 4 for those of 3 and 4 bits,
and 8 for those of 5, 6, 7 and 8 bits. `program.safetensors` packs every width densely.
"""

import logging
from os import PathLike
from pathlib import Path

from qat.emitters.onnxruntime.file_metadata import described, metadata
from qat.emitters.onnxruntime.floating import emit_float
from qat.emitters.onnxruntime.islands import (
    IslandCodes,
    IslandComparison,
    foreign_float_ops,
    islands_in,
    islands_of,
    refuse_islands,
)
from qat.emitters.onnxruntime.model_file import files_of, stored_bytes, written
from qat.emitters.onnxruntime.operators import build, graph_of, refusals
from qat.emitters.onnxruntime.readback import operations
from qat.emitters.onnxruntime.real import NodeComparison, build_real, check_codes, container_bits, emit_real
from qat.emitters.onnxruntime.session import (
    check_edges,
    float_ops,
    open_session,
    run_session,
    runtime_version,
    session_conditions,
    session_options,
    unfolded_ops,
)
from qat.emitters.options import DEFAULTS, ExportOptions
from qat.emitters.samples import outputs_by_name, random_inputs
from qat.errors import ExportError
from qat.integer.program import IntegerProgram

__all__ = [
    "IslandComparison", "NodeComparison", "build", "build_real", "check_codes", "check_edges", "container_bits", "emit",
    "emit_float", "emit_real", "files_of", "float_ops", "islands_in",
    "islands_of", "metadata", "open_session", "operations", "refusals", "run_session", "runtime_version",
    "session_conditions", "session_options", "stored_bytes", "unfolded_ops",
]  # fmt: skip


_LOG = logging.getLogger("qat")


def emit(
    program: IntegerProgram,
    path: str | PathLike,
    options: ExportOptions = DEFAULTS,
    single_bytes: int | None = None,
) -> None:
    """Write `program` as an ONNX file. Raises `ExportError`, and writes none, where it is not integer or not equal.

    Islands of `options.nonlinear`, those of rules as well, are compared as `islands` says. single_bytes: as for
    `model_file.written`.
    """
    graph = graph_of(program, options.nonlinear)
    with written(graph, program, Path(path), described(program, options.labels), single_bytes) as temporary:
        check(program, temporary, options.nonlinear)


def check(program: IntegerProgram, path: str | PathLike, nonlinear: str = "integer") -> None:
    """Refuse a file that computes in real numbers, or other codes than the interpreter on random ones.

    nonlinear: as for `emit`, which says what the file may have as float islands; a few codes of theirs may be one off.
    """
    islands = islands_of(program, nonlinear)
    if floats := foreign_float_ops(program, path, nonlinear) if islands else float_ops(path):
        raise ExportError(f"ONNX Runtime would compute {len(floats)} nodes in floating point: {', '.join(floats[:5])}.")
    if unfolded := unfolded_ops(path):
        raise ExportError(f"ONNX Runtime would unpack weights at every run: {', '.join(unfolded[:5])}.")
    session = open_session(path)
    compared = IslandComparison(program, path) if islands else None
    found = IslandCodes()
    for inputs in random_inputs(program):
        if compared is not None:
            codes, expected = compared(inputs)
            found += codes
        else:
            expected = outputs_by_name(program, inputs)
        results = run_session(session, inputs)
        for name, real in expected.items():
            differing = int((results[name] != real).sum())
            if differing:
                raise ExportError(
                    f"ONNX Runtime {runtime_version()} gives other codes than the program for {differing} of "
                    f"{real.numel()} elements of output {name!r}; its kernels for this processor round otherwise."
                )
    if compared is not None:
        refuse_islands(found)
        _LOG.info("float islands give other codes than the program for %s", found)
