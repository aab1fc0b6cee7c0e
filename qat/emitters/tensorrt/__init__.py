"""The emitter for TensorRT: an ONNX file in QDQ form, of which TensorRT makes INT8 kernels.

TensorRT runs on NVIDIA GPUs alone. What a machine without one can prove is proven: the numbers, by ONNX Runtime on the
same file with optimizations off, operation by operation (`check`), and the kernels, by building an engine with
TensorRT-RTX, which needs no GPU, and reading the datatype of each layer (`conformance`). A program whose sequences have
any length is written for its recorded one.
"""

import logging
from os import PathLike
from pathlib import Path

from qat.emitters.onnxruntime import session as onnx_session
from qat.emitters.onnxruntime.file_metadata import described, metadata
from qat.emitters.onnxruntime.islands import IslandCodes
from qat.emitters.onnxruntime.model_file import files_of, stored_bytes, written
from qat.emitters.onnxruntime.session import run_session
from qat.emitters.options import DEFAULTS, ExportOptions
from qat.emitters.refused import RefusedError
from qat.emitters.samples import random_inputs
from qat.emitters.tensorrt.check import (
    IslandComparison,
    LayerComparison,
    computes_reals,
    refuse_differences,
)
from qat.emitters.tensorrt.conformance import float_ops, not_int8
from qat.emitters.tensorrt.operators import graph_of
from qat.emitters.tensorrt.readback import QDQFile, operations
from qat.emitters.tensorrt.refusals import refusals
from qat.emitters.tensorrt.session import open_session, session_conditions
from qat.errors import ExportError
from qat.integer.program import IntegerProgram

__all__ = [
    "IslandComparison", "LayerComparison", "build", "check", "check_edges", "emit", "files_of",
    "float_ops", "islands_in", "metadata", "open_session", "operations", "refusals", "run_session",
    "session_conditions", "stored_bytes",
]  # fmt: skip

_LOG = logging.getLogger("qat")


def emit(program: IntegerProgram, path: str | PathLike, options: ExportOptions = DEFAULTS) -> None:
    """Write `program` as a QDQ file. Raises `ExportError`, and writes none, for what `refusals` and `check` refuse."""
    if refused := refusals(program):
        raise RefusedError("tensorrt", refused)
    whole, program = program, program.at()
    with written(graph_of(program), program, Path(path), described(whole, options.labels)) as temporary:
        found = check(program, temporary)
    if reals := [operation.name for operation in program.operations if computes_reals(operation)]:
        _LOG.warning("%s computes in float32 what TensorRT has no integers for: %s", path, ", ".join(reals))
    differing = {name: codes for name, codes in found.items() if codes.differing}
    for name, codes in differing.items():
        _LOG.info("%s gives other codes than the program for %s", name, codes)


def build(program: IntegerProgram) -> bytes:
    """The bytes of the QDQ file."""
    program = program.at()
    return graph_of(program).to_bytes(program)


def check(program: IntegerProgram, path: str | PathLike) -> dict[str, IslandCodes]:
    """Refuse a file whose operations give other codes than the program's on random ones, but for float32's rounding.

    Returns by operation, and by input, how many codes differ, which for all but `computes_reals` and sums beyond
    float32's whole numbers is none (`is_exact`).
    """
    program = program.at()
    floats = [] if any(map(computes_reals, program.operations)) else QDQFile(path).float_nodes()
    if floats:
        raise ExportError(
            f"TensorRT would compute {len(floats)} nodes in floating point, {floats[0].name!r} among them."
        )
    compared, found = LayerComparison(program, path), {}
    for inputs in random_inputs(program):
        for name, codes in compared(inputs).items():
            found[name] = found.get(name, IslandCodes()) + codes
    refuse_differences(program, found)
    return found


def check_edges(session, program: IntegerProgram, path: str | PathLike) -> None:
    """Refuse a session whose inputs and outputs are not those of `program` at its recorded length."""
    onnx_session.check_edges(session, program.at(), path)


def islands_in(program: IntegerProgram, path: str | PathLike) -> tuple[str, ...]:
    """Names of the operations that the file computes in real numbers; none where it does so elsewhere as well."""
    if not_int8(path):
        return ()
    return tuple(operation.name for operation in program.operations if computes_reals(operation))
