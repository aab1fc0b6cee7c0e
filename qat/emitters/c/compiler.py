"""The C compiler of this machine: where there is one, sources are proven to be integer, and run."""

import functools
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from qat.errors import ExportError

#: How strictly sources are compiled.
STRICT = ("-std=c99", "-Wall", "-Wextra", "-Werror")
#: With it the compiler refuses every floating-point operation (and every vector register).
INTEGER_ONLY = "-mgeneral-regs-only"
#: How what is run here is compiled.
OPTIMIZED = ("-O3", "-march=native")
#: Seconds that a compilation may take; a hundred megabytes of weights take some.
_PATIENCE = 900


@functools.cache
def find_compiler() -> str | None:
    """The path of a C compiler: what the environment variable CC names, else cc, gcc or clang; None for none."""
    for name in (os.environ.get("CC"), "cc", "gcc", "clang"):
        if name and (found := shutil.which(name)):
            return found
    return None


def needed_compiler() -> str:
    """The path of a C compiler. Raises `ExportError` where there is none."""
    compiler = find_compiler()
    if compiler is None:
        raise ExportError(
            "there is no C compiler to run the source with; install gcc or clang, or set the environment variable CC."
        )
    return compiler


@functools.cache
def compiler_version() -> str:
    """Name and version, as the compiler says."""
    result = subprocess.run([needed_compiler(), "--version"], capture_output=True, text=True, timeout=60)
    return result.stdout.partition("\n")[0]


@functools.cache
def knows_integer_only() -> bool:
    """Whether the compiler can be told to use no floating-point register."""
    return not compile_errors("int nothing;\n", (INTEGER_ONLY,))


def compile_source(source: Path, target: Path, flags: Sequence[str]) -> list[str]:
    """Compile a file; what the compiler has to say against it, a line each, empty where it has a target."""
    command = [needed_compiler(), *flags, str(source), "-o", str(target)]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE)
    except subprocess.TimeoutExpired as error:
        raise ExportError(f"compiling {source} takes longer than {_PATIENCE} seconds; compile it yourself.") from error
    if result.returncode == 0:
        return []
    return re.findall(r"(?:error|undefined).*", result.stderr) or result.stderr.splitlines() or ["the compiler failed"]


def compile_errors(text: str, flags: Sequence[str]) -> list[str]:
    """What the compiler has to say against a text."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source.c"
        source.write_text(text)
        return compile_source(source, Path(folder) / "source.o", ("-c", *flags))
