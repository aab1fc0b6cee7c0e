"""Exported files: `export` chooses the emitter of a runtime; each emitter imports its own runtime and no other."""

import importlib
from os import PathLike

from qat.errors import ConfigurationError, MissingExtraError
from qat.integer.program import IntegerProgram

#: Runtime -> module of its emitter. The extra of the distribution has the runtime's name.
EMITTERS = {"onnxruntime": "qat.emitters.onnxruntime"}


def export(program: IntegerProgram, path: str | PathLike, runtime: str = "onnxruntime") -> None:
    """Write `program` to `path` for `runtime`, and check that the runtime computes the same codes.

    Raises `ConfigurationError` for an unknown runtime, `MissingExtraError` where its packages are not installed,
    `ExportError` where the file cannot be written, is not integer or not equal; then no file is left under `path`.
    """
    emitter = emitter_of(runtime)
    if not isinstance(program, IntegerProgram):
        raise ConfigurationError(
            f"export takes an IntegerProgram, not a {type(program).__name__}; call qat.convert(module) first."
        )
    emitter.emit(program, path)


def emitter_of(runtime: str):
    """The emitter module of `runtime`."""
    if runtime not in EMITTERS:
        raise ConfigurationError(f"runtime is {runtime!r}; choose one of {', '.join(EMITTERS)}.")
    try:
        return importlib.import_module(EMITTERS[runtime])
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("qat"):
            raise
        raise MissingExtraError(
            f"exporting for {runtime} needs the package {error.name!r}; install it with "
            f'pip install "lightning-qat[{runtime}]".'
        ) from error
