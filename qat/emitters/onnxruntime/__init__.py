"""The emitter for ONNX Runtime: a QOperator file on uint8 codes, compared with the interpreter before it is named.

Weights take in the file the narrowest type that ONNX has: 2 bits each for 2-bit weights, 4 for those of 3 and 4 bits,
and 8 for those of 5, 6, 7 and 8 bits. `program.safetensors` packs every width densely.
"""

from os import PathLike
from pathlib import Path

import torch

from qat.emitters.onnxruntime.floating import emit_float
from qat.emitters.onnxruntime.operators import build
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
from qat.errors import ExportError
from qat.files import written_whole
from qat.integer.interpreter import run_real, to_edge
from qat.integer.program import IntegerProgram

__all__ = [
    "check_edges", "emit", "emit_float", "float_ops", "open_session", "run_session", "runtime_version",
    "session_conditions", "session_options", "unfolded_ops",
]  # fmt: skip

#: Batch sizes of the check after writing: a single sample, and an odd one that is no multiple of a vector's width.
CHECK_BATCHES = (1, 7, 3)
CHECK_SEED = 20


def emit(program: IntegerProgram, path: str | PathLike) -> None:
    """Write `program` as an ONNX file. Raises `ExportError`, and writes none, where it is not integer or not equal."""
    with written_whole(Path(path), build(program)) as temporary:
        check(program, temporary)


def check(program: IntegerProgram, path: str | PathLike) -> None:
    """Refuse a file that computes in real numbers, or other codes than the interpreter on random ones."""
    if floats := float_ops(path):
        raise ExportError(f"ONNX Runtime would compute {len(floats)} nodes in floating point: {', '.join(floats[:5])}.")
    if unfolded := unfolded_ops(path):
        raise ExportError(f"ONNX Runtime would unpack weights at every run: {', '.join(unfolded[:5])}.")
    session = open_session(path)
    generator = torch.Generator().manual_seed(CHECK_SEED)
    for size in CHECK_BATCHES:
        inputs = {}
        for edge in program.inputs:
            value = program.value(edge.value)
            limits = value.grid.quant_min, value.grid.quant_max + 1
            codes = torch.randint(*limits, (size, *value.shape), generator=generator)
            inputs[edge.name] = to_edge(codes, value.grid, edge.codes)
        expected = run_real(program, inputs)
        if isinstance(expected, torch.Tensor):
            expected = (expected,)
        results = run_session(session, inputs)
        reals = expected.values() if isinstance(expected, dict) else expected
        for edge, real in zip(program.outputs, reals, strict=True):
            differing = int((results[edge.name] != real).sum())
            if differing:
                raise ExportError(
                    f"ONNX Runtime {runtime_version()} gives other codes than the program for {differing} of "
                    f"{real.numel()} elements of output {edge.name!r}; its kernels for this processor round otherwise."
                )
