"""The emitter for LiteRT (TensorFlow Lite): a full-integer .tflite file, compared with the program before it is named.

Equality holds for the kernels of XNNPACK, which LiteRT runs by default: they round as `qat.integer.semantics` says,
measured on an x86 processor. Codes of 16 bits have TensorFlow Lite's own (`qat.integer.sixteen_bits`). Operations are
listed by `refusals` that have no equal form. The batch has any size: tensors are of a batch of 1,
`resize_tensor_input` makes it another. A program of several lengths is exported at its recorded one, its loops step by
step.

Edges carry real numbers, quantized first and dequantized last; where the program says so (`with_integer_edges`) codes,
in int8 or int16 tensors. They have the layout of the network; with `channels_last` images are (N, H, W, C).
"""

from os import PathLike
from pathlib import Path

from qat.emitters.litert.operators import build
from qat.emitters.litert.reading import float_ops, operations, weight_types
from qat.emitters.litert.refusals import refusals
from qat.emitters.litert.session import (
    check_edges,
    delegated_ops,
    open_session,
    run_session,
    runtime_version,
    session_conditions,
)
from qat.emitters.options import DEFAULTS, ExportOptions
from qat.emitters.samples import outputs_by_name, random_inputs
from qat.emitters.single_file import files_of, stored_bytes
from qat.errors import ExportError
from qat.files import write_whole, written_whole
from qat.integer.program import IntegerProgram
from qat.integer.semantics import for_runtime

__all__ = [
    "build", "check_edges", "delegated_ops", "emit", "emit_float", "files_of", "float_ops", "open_session",
    "operations", "refusals", "run_session", "runtime_version", "session_conditions", "stored_bytes", "weight_types",
]  # fmt: skip


def emit(program: IntegerProgram, path: str | PathLike, options: ExportOptions = DEFAULTS) -> None:
    """Write `program`, which has LiteRT's rounding (`qat.integer.semantics.for_runtime`), as a .tflite file.

    Raises `ExportError`, and writes none, where it has no equal form, is not integer or not equal.
    """
    with written_whole(Path(path), build(program, options)) as temporary:
        check(program, temporary)


def emit_float(program: IntegerProgram, path: str | PathLike) -> None:
    """Write the float32 network behind `program` with the same inputs and outputs, none of codes."""
    program = for_runtime(program.with_real_edges(), "litert")
    write_whole(Path(path), build(program, DEFAULTS, real=True))


def check(program: IntegerProgram, path: str | PathLike) -> None:
    """Refuse a file that computes in real numbers, or other codes than the interpreter on random ones."""
    if floats := float_ops(path):
        raise ExportError(f"LiteRT would compute {len(floats)} operators in floating point: {', '.join(floats[:5])}.")
    session = open_session(path)
    for inputs in random_inputs(program.at(), any_length=False):
        results = run_session(session, inputs)
        for name, expected in outputs_by_name(program.at(), inputs).items():
            differing = int((results[name] != expected).sum())
            if differing:
                raise ExportError(
                    f"LiteRT {runtime_version()} gives other codes than the program for {differing} of "
                    f"{expected.numel()} elements of output {name!r}; its kernels for this processor round otherwise."
                )
