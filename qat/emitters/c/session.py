"""Exported sources on this machine: compiled to a library, and called a sample at a time."""

import ctypes
import platform
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy
import torch
from torch import Tensor

from qat.emitters.c.compiler import OPTIMIZED, STRICT, compile_source, compiler_version
from qat.emitters.c.header import Interface, Port, read_header
from qat.errors import ExportError
from qat.integer.interpreter import from_edge, to_edge
from qat.integer.program import IntegerProgram

#: What the function returns besides 0, as its header has it.
_ERRORS = {1: "a pointer is 0", 2: "sizes differ", 3: "the arena does not fit", 4: "codes are outside of MIN..MAX"}


@dataclass
class Session:
    """A compiled source. interface: what its header says. function: the one that runs it."""

    interface: Interface
    function: ctypes._CFuncPtr

    def __post_init__(self):
        # a union of bytes and int64 in C, so that it begins at a multiple of 8
        self._arena = numpy.zeros(-(-self.interface.arena_bytes // 8) + 1, numpy.int64)

    def call(self, inputs: list[numpy.ndarray], outputs: list[numpy.ndarray]) -> int:
        """Run one sample: what the function returns."""
        arguments = []
        for array in (*inputs, *outputs, self._arena):
            arguments += [array.ctypes.data, array.nbytes]
        return self.function(*arguments)


def header_of(path: str | PathLike) -> Path:
    """The header beside a source."""
    return Path(path).with_suffix(".h")


def files_of(path: str | PathLike) -> tuple[Path, Path]:
    """Both files of an export: the source and its header."""
    return Path(path), header_of(path)


def read_interface(path: str | PathLike) -> Interface:
    """What the header beside a source says. Raises `ExportError` for files that are missing or of no export."""
    for file in files_of(path):
        if not file.is_file():
            raise ExportError(f"{file} does not exist, or is no file; give the path that the program was exported to.")
    return read_header(header_of(path).read_text(errors="replace"), header_of(path))


def open_session(path: str | PathLike, flags: Sequence[str] | None = None) -> Session:
    """The source at `path`, compiled. flags: for the compiler, by default `OPTIMIZED`.

    Raises `ExportError` for files that are missing or that do not compile, and where there is no compiler.
    """
    interface = read_interface(path)
    options = (*STRICT, "-shared", "-fPIC", *(OPTIMIZED if flags is None else flags))
    with tempfile.TemporaryDirectory(prefix="qat_c_") as folder:  # a library that is loaded needs its file no more
        library = Path(folder) / "network.so"
        if errors := compile_source(Path(path), library, options):
            raise ExportError(f"{path} cannot be compiled ({errors[0][:200]}); export the program again.")
        function = getattr(ctypes.CDLL(str(library)), f"{interface.prefix}_run")
    function.restype = ctypes.c_int
    count = len(interface.inputs) + len(interface.outputs) + 1
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t] * count
    return Session(interface, function)


def run_session(session: Session, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Outputs by name, of inputs by name, in the dtypes of their edges; one call for every sample."""
    interface = session.interface
    given = [codes_of(port, inputs[port.name]) for port in interface.inputs]
    batch = len(given[0])
    made = [numpy.zeros((batch, *port.shape), numpy_type(port)) for port in interface.outputs]
    for index in range(batch):
        samples = [numpy.ascontiguousarray(array[index]) for array in given]
        results = [numpy.zeros(port.shape, numpy_type(port)) for port in interface.outputs]
        code = session.call(samples, results)
        if code:
            raise ExportError(f"{interface.prefix}_run returns {code}: {_ERRORS.get(code, 'unknown')}.")
        for array, result in zip(made, results, strict=True):
            array[index] = result
    return {port.name: real_of(port, array) for port, array in zip(interface.outputs, made, strict=True)}


def numpy_type(port: Port) -> numpy.dtype:
    """The type of a port's elements."""
    return numpy.dtype(port.ctype.name.removesuffix("_t"))


def codes_of(port: Port, tensor: Tensor) -> numpy.ndarray:
    """Codes as C takes them, of a tensor as the program's edge has it."""
    if tuple(tensor.shape[1:]) != port.shape:
        raise ExportError(f"input {port.name!r} has shape {tuple(tensor.shape)}; it takes (batch, *{port.shape}).")
    codes = from_edge(tensor, port.grid, port.codes).numpy().astype(numpy_type(port))
    return numpy.moveaxis(codes, 1, -1) if port.channels_last else codes


def real_of(port: Port, codes: numpy.ndarray) -> Tensor:
    """A tensor as the program's edge has it, of codes as C gives them."""
    return to_edge(torch.from_numpy(codes.astype(numpy.int64)).to(port.grid.dtype), port.grid, port.codes)


def check_edges(session: Session, program: IntegerProgram, path: str | PathLike) -> None:
    """Refuse a source whose inputs and outputs are not those of `program`, at its recorded lengths."""
    found = [_described(ports) for ports in (session.interface.inputs, session.interface.outputs)]
    program = program.at()
    wanted = [
        _described(
            Port(edge.name, "", program.value(edge.value).shape, program.value(edge.value).grid, edge.codes)
            for edge in edges
        )
        for edges in (program.inputs, program.outputs)
    ]
    if found != wanted:
        raise ExportError(
            f"{path} is the source of another program: it makes {found[1]} of {found[0]}, and the program makes "
            f"{wanted[1]} of {wanted[0]}; export the program to it."
        )


def _described(ports: Iterable[Port]) -> str:
    return ", ".join(f"{port.name} {tuple(port.shape)} on {port.grid}, {port.kind}" for port in ports)


def session_conditions() -> dict[str, object]:
    """What results of compiled sources on this machine hold for; part of a report."""
    return {"compiler": compiler_version(), "flags": " ".join(OPTIMIZED), "processor": platform.machine()}
