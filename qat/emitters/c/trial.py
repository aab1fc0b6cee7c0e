"""Exported sources in a process of their own, so that whatever is wrong with one harms nothing else."""

import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path

import numpy
from torch import Tensor

from qat.emitters.c.compiler import OPTIMIZED, STRICT, compile_source
from qat.emitters.c.header import Interface
from qat.emitters.c.session import codes_of, numpy_type, read_interface, real_of
from qat.errors import ExportError

#: Seconds that the samples of a trial may take.
_PATIENCE = 600

_MAIN = """
#include <stdio.h>
#include "{source}"

/* One sample after another: inputs from the standard input, outputs to the standard output. */
int main(void)
{{
    static {prefix}_arena_t arena;
{buffers}
    while ({reads}) {{
        const int result = {PREFIX}_RUN({arguments}, arena);
        if (result != {PREFIX}_OK)
            return result;
{writes}
    }}
    return 0;
}}
"""


def run_in_process(
    path: str | PathLike, inputs: Mapping[str, Tensor], flags: Sequence[str] = OPTIMIZED
) -> dict[str, Tensor]:
    """Outputs by name, of inputs by name, as `session.run_session` gives them. flags: for the compiler.

    Raises `ExportError` where the source does not compile, or its process fails: with a sanitizer among the flags, at
    the first access or number that it does not allow.
    """
    interface = read_interface(path)
    given = [codes_of(port, inputs[port.name]) for port in interface.inputs]
    batch = len(given[0])
    stream = b"".join(array[index].tobytes() for index in range(batch) for array in given)
    with tempfile.TemporaryDirectory(prefix="qat_c_") as folder:
        driver, program = Path(folder) / "main.c", Path(folder) / "main"
        driver.write_text(_driver(interface, Path(path)))
        if errors := compile_source(driver, program, (*STRICT, *flags)):
            raise ExportError(f"{path} cannot be compiled ({errors[0][:200]}); export the program again.")
        result = subprocess.run([program], input=stream, capture_output=True, timeout=_PATIENCE)
    if result.returncode:
        said = result.stderr.decode(errors="replace").strip().partition("\n")[0][:300]
        raise ExportError(f"the C source fails with {result.returncode} ({said}); export the program again.")
    return _outputs(interface, result.stdout, batch)


def _driver(interface: Interface, path: Path) -> str:
    upper = interface.prefix.upper()
    ports = (*interface.inputs, *interface.outputs)
    return _MAIN.format(
        source=path.resolve(),
        prefix=interface.prefix,
        PREFIX=upper,
        buffers="\n".join(
            f"    static {port.ctype.name} {port.identifier}[{upper}_{port.identifier.upper()}_SIZE];" for port in ports
        ),
        reads=" && ".join(
            f"fread({port.identifier}, sizeof({port.identifier}), 1, stdin) == 1" for port in interface.inputs
        ),
        arguments=", ".join(port.identifier for port in ports),
        writes="\n".join(
            f"        fwrite({port.identifier}, sizeof({port.identifier}), 1, stdout);" for port in interface.outputs
        ),
    )


def _outputs(interface: Interface, stream: bytes, batch: int) -> dict[str, Tensor]:
    record = numpy.dtype([(port.identifier, numpy_type(port), port.shape) for port in interface.outputs])
    samples = numpy.frombuffer(stream, record)
    if len(samples) != batch:
        raise ExportError(f"the C source gives {len(samples)} results for {batch} samples; export the program again.")
    return {port.name: real_of(port, samples[port.identifier]) for port in interface.outputs}
