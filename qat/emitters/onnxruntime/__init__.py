"""The emitter for ONNX Runtime: a QOperator file on uint8 codes, compared with the interpreter before it is named.

Weights take in the file the narrowest type that ONNX has: 2 bits each for 2-bit weights, 4 for those of 3 and 4 bits,
and 8 for those of 5, 6, 7 and 8 bits. `program.safetensors` packs every width densely.
"""

import logging
from collections.abc import Iterator
from os import PathLike
from pathlib import Path

import torch

from qat.emitters.onnxruntime.floating import emit_float
from qat.emitters.onnxruntime.islands import (
    IslandCodes,
    IslandComparison,
    foreign_float_ops,
    islands_in,
    islands_of,
    refuse_islands,
)
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
from qat.emitters.options import ExportOptions
from qat.errors import ExportError
from qat.files import written_whole
from qat.integer.interpreter import run_real, to_edge
from qat.integer.program import IntegerProgram

__all__ = [
    "IslandComparison", "build", "check_edges", "emit", "emit_float", "float_ops", "islands_in", "islands_of",
    "open_session", "run_session", "runtime_version", "session_conditions", "session_options", "unfolded_ops",
]  # fmt: skip

#: Batch sizes of the check after writing: a single sample, and odd ones that are no multiple of a vector's width.
#: Other lengths than the recorded one are checked with the first two.
CHECK_BATCHES = (1, 7, 3)
CHECK_SEED = 20

_LOG = logging.getLogger("qat")


def emit(program: IntegerProgram, path: str | PathLike, options: ExportOptions) -> None:
    """Write `program` as an ONNX file. Raises `ExportError`, and writes none, where it is not integer or not equal.

    Islands of `options.nonlinear`, those of rules as well, are compared as `islands` says.
    """
    with written_whole(Path(path), build(program, options.nonlinear)) as temporary:
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
    for inputs in _random_inputs(program):
        if compared is not None:
            codes, expected = compared(inputs)
            found += codes
        else:
            expected = _by_name(program, run_real(program, inputs))
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


def _by_name(program: IntegerProgram, outputs) -> dict[str, torch.Tensor]:
    """Outputs by name, of what the program returns in its output structure."""
    if isinstance(outputs, dict):
        return outputs
    tensors = (outputs,) if isinstance(outputs, torch.Tensor) else outputs
    return dict(zip((edge.name for edge in program.outputs), tensors, strict=True))


def _random_inputs(program: IntegerProgram) -> Iterator[dict[str, torch.Tensor]]:
    """Real inputs by name, of random codes, of the recorded and of other lengths."""
    generator = torch.Generator().manual_seed(CHECK_SEED)
    others = [
        program.at(**{entry.symbol: length})
        for entry in program.lengths
        for length in entry.samples(longest=entry.recorded + 3)
    ]
    cases = [(size, program) for size in CHECK_BATCHES] + [
        (size, case) for size in CHECK_BATCHES[:2] for case in others
    ]
    for size, case in cases:
        inputs = {}
        for edge in case.inputs:
            value = case.value(edge.value)
            limits = value.grid.quant_min, value.grid.quant_max + 1
            codes = torch.randint(*limits, (size, *value.shape), generator=generator)
            inputs[edge.name] = to_edge(codes, value.grid, edge.codes)
        yield inputs
