"""Exported files: `export` chooses the emitter of a runtime; each emitter imports its own runtime and no other."""

import importlib
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from qat.emitters.options import NONLINEAR, ExportOptions
from qat.errors import ConfigurationError, MissingExtraError
from qat.integer.images import ImageScaling
from qat.integer.program import IntegerProgram
from qat.integer.semantics import for_runtime
from qat.real.program import RealProgram

__all__ = [
    "NONLINEAR", "RUNTIMES", "ExportOptions", "Runtime", "check_nonlinear", "emitter_of", "export", "export_all",
    "exported_in", "files_of", "remove_exported", "runtime_named", "stored_bytes",
]  # fmt: skip


@dataclass(frozen=True)
class Runtime:
    """Where programs run, and what its emitter has besides what all emitters have (docs/architecture.md).

    file: what a run's folder calls its file. beside: what may lie beside that. extra: of the distribution, None where
    the emitter needs no package of its own.
    float_network: `emit_float`, to compare the latency with. islands: `islands_in` and `IslandComparison`, for files
    that compute some operations in real numbers. both_forms: `islands_of`, for operations with an integer form and a
    float one. real_programs: `emit_real` and `NodeComparison`, for programs that are not integer. layouts: whether
    image inputs can be (N, H, W, C), `ExportOptions.channels_last`.
    unpacked: whether narrow weights can be stored in int8, `ExportOptions.unpacked_weights`.
    runs_here: whether sessions are the runtime's own, so that their latency tells something.
    """

    name: str
    file: str
    extra: str | None = None
    beside: tuple[str, ...] = ()
    float_network: bool = False
    islands: bool = False
    both_forms: bool = False
    real_programs: bool = False
    layouts: bool = False
    unpacked: bool = False
    runs_here: bool = True

    @property
    def module(self) -> str:
        """The module of its emitter."""
        return f"qat.emitters.{self.name}"


_ALL = (
    Runtime(
        "onnxruntime", "model.onnx", "onnxruntime", ("model.onnx.data",),
        float_network=True, islands=True, both_forms=True, real_programs=True,
    ),
    Runtime("litert", "model.tflite", "litert", float_network=True, unpacked=True, layouts=True),
    Runtime(
        "tensorrt", "model_tensorrt.onnx", "onnxruntime", ("model_tensorrt.onnx.data",), islands=True, runs_here=False
    ),
    Runtime("c", "model.c", beside=("model.h",), layouts=True),
    Runtime("pytorch", "model.pt2", float_network=True),
    Runtime("web", "web", "onnxruntime", float_network=True),
)  # fmt: skip
RUNTIMES = {runtime.name: runtime for runtime in _ALL}


def export(
    program: IntegerProgram | RealProgram,
    path: str | PathLike,
    runtime: str = "onnxruntime",
    nonlinear: str = "integer",
    labels: Sequence[str] = (),
    channels_last: bool = False,
    image_scaling: ImageScaling | None = None,
    unpacked_weights: bool = False,
) -> None:
    """Write `program` to `path` for `runtime`, and check that the runtime computes the same codes.

    nonlinear: how softmax, its logarithm, normalization and division are computed: "integer", or as a "float_island",
    which may be faster, between integer kernels. What a rule left in float is an island in any case. A file with
    islands is not integer, and a few of their codes may be one off; all others are checked to be equal.
    labels, channels_last, image_scaling, unpacked_weights: as for `ExportOptions`.
    A `RealProgram` becomes a file that is not integer, checked node by node; onnxruntime alone runs such files, and
    nonlinear, channels_last and unpacked_weights are no choices of theirs.

    Raises `ConfigurationError` for an unknown choice, `MissingExtraError` where its packages are not installed,
    `ExportError` where the file cannot be written, is not integer or not equal; then no file is left under `path`.
    """
    emitter = emitter_of(runtime)
    options = ExportOptions(
        nonlinear=nonlinear,
        labels=labels,
        channels_last=channels_last,
        image_scaling=image_scaling,
        unpacked_weights=unpacked_weights,
    )
    if isinstance(program, RealProgram):
        if not RUNTIMES[runtime].real_programs:
            raise ConfigurationError(
                f"the program's activations are {program.activations}, and {runtime} runs integer files only; export "
                "it for onnxruntime, or quantize with activations='static'."
            )
        if nonlinear != "integer" or channels_last or unpacked_weights:
            raise ConfigurationError(
                "nonlinear, channels_last and unpacked_weights are choices of integer files, and this one computes in "
                "real numbers; leave them out."
            )
        emitter.emit_real(program, path, options.labels)
        return
    if not isinstance(program, IntegerProgram):
        raise ConfigurationError(
            f"export takes an IntegerProgram, not a {type(program).__name__}; call qat.convert(module) first."
        )
    _check_choices(runtime, options)
    _check_labels(program, options.labels)
    emitter.emit(for_runtime(program, runtime), path, options)


def _check_choices(runtime: str, options: ExportOptions) -> None:
    """Refuse choices that `runtime` does not have."""
    check_nonlinear(options.nonlinear, [runtime])
    if options.unpacked_weights and not RUNTIMES[runtime].unpacked:
        raise ConfigurationError(
            f"unpacked_weights is True, but files for {runtime} are no faster with weights of 8 bits; leave it out, or "
            f"export for {' or '.join(entry.name for entry in _ALL if entry.unpacked)}."
        )
    if options.channels_last and not RUNTIMES[runtime].layouts:
        raise ConfigurationError(
            f"channels_last is True, but {runtime} takes the network's own inputs as it does; export for "
            f"{' or '.join(entry.name for entry in _ALL if entry.layouts)}, or take raw pictures with "
            "program.with_image_input(channels_last=True)."
        )


def _check_labels(program: IntegerProgram, labels: Sequence[str]) -> None:
    """Refuse labels of which there are more or fewer than any output has classes."""
    classes = {edge.name: program.value(edge.value).shape[-1:] for edge in program.outputs}
    if labels and (len(labels),) not in classes.values():
        found = ", ".join(f"{name} {count[0] if count else 1}" for name, count in classes.items())
        raise ConfigurationError(
            f"there are {len(labels)} labels, but the last dimension of the outputs is another ({found}); give one "
            "label for each class."
        )


def export_all(program: IntegerProgram, directory: Path, runtimes: Iterable[str], **choices) -> dict[str, Path]:
    """Export for several runtimes into one folder, under the names of `RUNTIMES`; the paths by runtime.

    choices: as for `export`.
    """
    files = {runtime: directory / runtime_named(runtime).file for runtime in runtimes}
    for runtime, path in files.items():
        export(program, path, runtime=runtime, **choices)
    return files


def exported_in(directory: Path) -> dict[str, Path]:
    """What lies in a folder under the names of `RUNTIMES`, by runtime."""
    files = {name: directory / runtime.file for name, runtime in RUNTIMES.items()}
    return {name: path for name, path in files.items() if path.exists()}


def remove_exported(directory: Path) -> None:
    """Take away what `export_all` left in a folder, and what belongs to it."""
    for runtime in RUNTIMES.values():
        for name in (runtime.file, *runtime.beside):
            path = directory / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def check_nonlinear(nonlinear: str, runtimes: Iterable[str] = ()) -> None:
    """Raise `ConfigurationError` for anything but one of `NONLINEAR`, or where one of `runtimes` has no islands."""
    ExportOptions(nonlinear)
    without = [runtime for runtime in runtimes if not runtime_named(runtime).islands]
    if nonlinear == "float_island" and without:
        raise ConfigurationError(
            f"nonlinear is {nonlinear!r}, but files for {' and '.join(without)} compute with integers alone; use "
            "'integer'."
        )


def runtime_named(name: str) -> Runtime:
    """The runtime called `name`. Raises `ConfigurationError` for another name."""
    if not isinstance(name, str) or name not in RUNTIMES:
        raise ConfigurationError(f"runtime is {name!r}; choose one of {', '.join(RUNTIMES)}.")
    return RUNTIMES[name]


def emitter_of(runtime: str):
    """The emitter module of `runtime`."""
    entry = runtime_named(runtime)
    try:
        return importlib.import_module(entry.module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("qat") or entry.extra is None:
            raise
        raise MissingExtraError(
            f"exporting for {runtime} needs the package {error.name.partition('.')[0]!r}; install it with "
            f'pip install "lightning-qat[{entry.extra}]".'
        ) from error


def files_of(runtime: str, path: str | PathLike) -> tuple[Path, ...]:
    """Every file that belongs to what was exported to `path`, that first."""
    return tuple(emitter_of(runtime).files_of(Path(path)))


def stored_bytes(runtime: str, path: str | PathLike) -> int:
    """Bytes that what was exported to `path` takes where it runs.

    Those of its files, but for C, whose source is text: its constants; and for a page: its model.
    """
    return emitter_of(runtime).stored_bytes(Path(path))
