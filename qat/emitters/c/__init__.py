"""The emitter for plain C: one source and one header, C99, for processors without floating point or memory to spare.

The source calls no library, allocates nothing and keeps no state. Weights stay packed at their true width and are
unpacked a few rows at a time; what lies between inputs and outputs shares one arena, planned by how long it lives.
Inputs and outputs are codes, one sample a call. Programs of several lengths are written for the recorded one.

Where a C compiler is installed, `emit` compiles the source with an option that refuses floating-point operations, and
compares it with the interpreter before the files get their names.
"""

import logging
import tempfile
from os import PathLike
from pathlib import Path

from qat.emitters.c.compiler import OPTIMIZED, find_compiler
from qat.emitters.c.forms import FORMS
from qat.emitters.c.readback import Footprint, float_ops, footprint, operations, stored_bytes
from qat.emitters.c.session import (
    check_edges,
    files_of,
    header_of,
    open_session,
    run_session,
    session_conditions,
)
from qat.emitters.c.source import Sources, write_sources
from qat.emitters.c.trial import run_in_process
from qat.emitters.options import DEFAULTS, ExportOptions
from qat.emitters.refused import Refusal, RefusedError
from qat.emitters.samples import outputs_by_name, random_inputs
from qat.errors import ExportError
from qat.files import written_together
from qat.integer.checks import accumulator_reach
from qat.integer.fixed_point import SumMultipliers
from qat.integer.operations import Add, Conv, FloatIsland, Linear, MatMul, Operation
from qat.integer.operations.base import INT32_MAX
from qat.integer.program import IntegerProgram
from qat.integer.sixteen_bits import FixedMultiplier

__all__ = [
    "Footprint", "check_edges", "emit", "files_of", "float_ops", "footprint", "open_session", "operations", "refusals",
    "run_session", "session_conditions", "stored_bytes",
]  # fmt: skip

#: Samples of the check after writing, one run of the source each.
CHECK_SAMPLES = 8

_LOG = logging.getLogger("qat")


def refusals(program: IntegerProgram) -> list[Refusal]:
    """What C has no form for here; empty where `emit` will write the program."""
    found = []
    for part in (program, *program.bodies):
        for operation in part.operations:
            if isinstance(operation, FloatIsland):
                found.append(Refusal.of_island(operation))
            elif type(operation) not in FORMS:
                found.append(Refusal.of(operation, "it has no form in C", "export for another runtime"))
            elif (reach := _reach(part, operation)) > INT32_MAX:
                remedy = "give it fewer weight or activation bits"
                found.append(Refusal.of(operation, "sums in C have 32 bits", remedy, f"here they reach {reach}"))
            elif _rounds_otherwise(operation):
                remedy = "export the program with qat.export(program, path, 'c')"
                found.append(Refusal.of(operation, "it rounds as another runtime does", remedy))
    return found


def _reach(part: IntegerProgram, operation: Operation) -> int:
    """The largest magnitude of its accumulators; sums of products of 16-bit codes may be wider than C has them."""
    if not isinstance(operation, Conv | Linear | MatMul):
        return 0
    return accumulator_reach(operation, part.named)


def _rounds_otherwise(operation: Operation) -> bool:
    """Whether `semantics.for_runtime` made an operation for another runtime."""
    factors = getattr(operation, "factors", None)
    return (
        isinstance(operation, Add)
        and not isinstance(factors, SumMultipliers)
        or getattr(operation, "rounds_first", False)
        or isinstance(getattr(operation, "multiplier", None), FixedMultiplier)
    )


def emit(program: IntegerProgram, path: str | PathLike, options: ExportOptions = DEFAULTS) -> None:
    """Write `program` as a source, `path`, that ends in .c, and a header of the same name beside it.

    Raises `ExportError`, and writes nothing, for a program that C has no form for, and where the source does not
    compile, is not integer, or gives other codes than the interpreter. Without a compiler that is logged, not checked.
    """
    path = Path(path)
    if path.suffix != ".c":
        raise ExportError(f"{path} does not end in .c; the header is written beside it, with .h.")
    if found := refusals(program):
        raise RefusedError("c", found)
    program = program.at()
    sources = write_sources(program, path.stem, options.labels, options.channels_last)
    if find_compiler() is None:
        _LOG.warning(
            "there is no C compiler, so that %s is written but was not run; install gcc to check it", path.name
        )
    else:
        with tempfile.TemporaryDirectory(prefix="qat_c_") as folder:
            check(program, _on_trial(sources, Path(folder) / path.name))
    files = {path: [sources.source.encode()], header_of(path): [sources.header.encode()]}
    with written_together(files):
        pass


def _on_trial(sources: Sources, path: Path) -> Path:
    """The source, written to a temporary folder with its header. Raises `ExportError` where there is no room."""
    try:
        path.write_text(sources.source)
        header_of(path).write_text(sources.header)
    except OSError as error:
        raise ExportError(
            f"{path.name} cannot be written to {path.parent} to try it ({error.strerror}); free some space there, or "
            "set TMPDIR to another folder."
        ) from error
    return path


def check(program: IntegerProgram, path: str | PathLike) -> None:
    """Refuse a source that computes in real numbers, or other codes than the interpreter on random ones."""
    if floats := float_ops(path):
        raise ExportError(f"the C source is not integer, or does not compile: {', '.join(floats[:5])}.")
    (inputs,) = random_inputs(program, (CHECK_SAMPLES,), any_length=False)
    results = run_in_process(path, inputs, OPTIMIZED)
    for name, real in outputs_by_name(program, inputs).items():
        differing = int((results[name] != real).sum())
        if differing:
            raise ExportError(
                f"the C source gives other codes than the program for {differing} of {real.numel()} elements of output "
                f"{name!r}; the compiler does not keep to C99."
            )
