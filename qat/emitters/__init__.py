"""Exported files: `export` chooses the emitter of a runtime; each emitter imports its own runtime and no other."""

import importlib
from os import PathLike

from qat.errors import ConfigurationError, MissingExtraError
from qat.integer.program import IntegerProgram

#: Runtime -> module of its emitter. The extra of the distribution has the runtime's name.
EMITTERS = {"onnxruntime": "qat.emitters.onnxruntime"}

#: How operations are computed that integers take many steps for.
NONLINEAR = ("integer", "float_island")


def export(
    program: IntegerProgram, path: str | PathLike, runtime: str = "onnxruntime", nonlinear: str = "integer"
) -> None:
    """Write `program` to `path` for `runtime`, and check that the runtime computes the same codes.

    nonlinear: how softmax, its logarithm, normalization and division are computed: "integer", or as a "float_island",
    which may be faster, between integer kernels. What a rule left in float is an island in any case. A file with
    islands is not integer, and a few of their codes may be one off; all others are checked to be equal.

    Raises `ConfigurationError` for an unknown choice, `MissingExtraError` where its packages are not installed,
    `ExportError` where the file cannot be written, is not integer or not equal; then no file is left under `path`.
    """
    emitter = emitter_of(runtime)
    check_nonlinear(nonlinear)
    if not isinstance(program, IntegerProgram):
        raise ConfigurationError(
            f"export takes an IntegerProgram, not a {type(program).__name__}; call qat.convert(module) first."
        )
    emitter.emit(program, path, nonlinear)


def check_nonlinear(nonlinear: str) -> None:
    """Raise `ConfigurationError` for anything but one of `NONLINEAR`."""
    if nonlinear not in NONLINEAR:
        raise ConfigurationError(f"nonlinear is {nonlinear!r}; choose one of {', '.join(NONLINEAR)}.")


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
