"""The emitter for browsers: a folder with a page, the ONNX file, and onnxruntime-web, that needs no network to run.

The page draws a picture, where the network takes small gray ones, or takes one from a file or a camera; brings it to
the size of the input by the mean of what lies under each pixel; makes the network's input of its bytes; and shows the
scores. Serve the folder with `python -m http.server`, or open index.html from disk: browsers read no other files then,
so that offline.js holds them once more.

The file is that of ONNX Runtime, and checked as such; onnxruntime-web runs the same kernels, compiled to wasm.
"""

import base64
import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import qat.emitters.onnxruntime as onnxruntime
from qat.emitters.description import description
from qat.emitters.options import DEFAULTS, ExportOptions
from qat.emitters.refused import Refusal, RefusedError
from qat.emitters.web.package import FILES, GLUE, SCRIPT, VERSION, WASM, runtime_files
from qat.files import written_folder
from qat.integer.image_input import network_input
from qat.integer.images import ImageScaling
from qat.integer.operations import Softmax
from qat.integer.program import Input, IntegerProgram, Output
from qat.integer.values import Grid

__all__ = [
    "check_edges", "emit", "emit_float", "files_of", "float_ops", "open_session", "operations", "refusals",
    "run_session", "session_conditions", "stored_bytes",
]  # fmt: skip

#: What the page is made of, besides the model and its runtime.
PAGE = ("index.html", "app.js", "style.css")
MODEL, DESCRIPTION, OFFLINE, RUNTIME = "model.onnx", "model.json", "offline.js", "ort"
_OWN_PAGE = "export it for onnxruntime, and write a page of your own"
#: Widest gray pictures that somebody draws rather than takes.
LARGEST_DRAWING = 64

session_conditions = onnxruntime.session_conditions
run_session = onnxruntime.run_session


def refusals(program: IntegerProgram) -> list[Refusal]:
    """What the page cannot show; empty where `emit` will write the program."""
    found = [Refusal.of_island(island) for island in program.float_operations]
    if program.lengths or len(program.inputs) != 1 or _picture(program) is None:
        taken = ", ".join(f"{edge.name} {tuple(program.value(edge.value).shape)}" for edge in program.inputs)
        found.append(
            Refusal(
                "the page takes one picture of 1 or 3 channels, (channels, height, width), and nothing else",
                _OWN_PAGE,
                f"the program takes {taken}",
            )
        )
    if _scores(program) is None:
        made = ", ".join(f"{edge.name} {tuple(program.value(edge.value).shape)}" for edge in program.outputs)
        found.append(
            Refusal(
                "the page shows the scores of classes, a real output of (classes,), and nothing else",
                _OWN_PAGE,
                f"the program makes {made}",
            )
        )
    return found


def emit(program: IntegerProgram, path: str | PathLike, options: ExportOptions = DEFAULTS) -> None:
    """Write the folder `path`, which is there whole or not at all, in the place of one that was there.

    A network that takes real numbers gets those that `options.image_scaling` makes of a picture, pixel / 255 without;
    one that takes pictures (`program.with_image_input`) gets their bytes. Raises `ExportError` for what the page cannot
    show, and where the file is not integer or not equal.
    """
    if refused := refusals(program):
        raise RefusedError("web", refused)
    runtime = {f"{RUNTIME}/{name}": content for name, content in runtime_files().items()}
    with written_folder(Path(path), (MODEL, DESCRIPTION, OFFLINE, RUNTIME, *PAGE)) as folder:
        onnxruntime.emit(program, folder / MODEL, options)
        model = (folder / MODEL).read_bytes()
        described = page_description(program, options, len(model))
        files = {DESCRIPTION: (json.dumps(described, indent=1) + "\n").encode()}
        files |= {name: Path(__file__).with_name("page").joinpath(name).read_bytes() for name in PAGE}
        asked = {DESCRIPTION: files[DESCRIPTION], MODEL: model} | runtime
        asked.pop(f"{RUNTIME}/{SCRIPT}")
        files[OFFLINE] = _offline(asked)
        for name, content in (files | runtime).items():
            target = folder / name
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(content)


def page_description(program: IntegerProgram, options: ExportOptions, size: int) -> dict[str, Any]:
    """What the page reads of a program, on top of `emitters.description`. size: bytes of the file."""
    edge, output = program.inputs[0], _scores(program)
    scaling = edge.image or options.image_scaling or ImageScaling()
    labels = options.labels
    channels, height, width = _picture(program)
    classes = program.value(output.value).shape[0]
    names = labels if len(labels) == classes else tuple(map(str, range(classes)))
    makers = {operation.output: operation for operation in program.operations}
    weights = [layer for layer in program.layers if layer.weight_bits is not None]
    bits = sorted({layer.weight_bits for layer in weights})
    count = sum(layer.weight_count for layer in weights)
    return description(program, names) | {
        "title": "Integer classifier",
        "about": f"{count:,} weights of {' and '.join(map(str, bits))} bits in a file of {size / 1000:,.1f} kB.",
        "input": {
            "name": edge.name,
            "dtype": "uint8" if edge.image else "float32",
            "channels": channels,
            "height": height,
            "width": width,
            "channels_last": edge.image is not None and scaling.channels_last,
            "largest": scaling.largest,
            "mean": scaling.mean,
            "std": scaling.std,
        },
        "output": output.name,
        "probabilities": isinstance(makers[output.value], Softmax),
        "drawing": channels == 1 and max(height, width) <= LARGEST_DRAWING,
        "runtime": f"onnxruntime-web {VERSION}",
        "glue": f"{RUNTIME}/{GLUE}",
        "wasm": f"{RUNTIME}/{WASM}",
    }


def files_of(path: Path) -> list[Path]:
    """All that a browser runs of the folder `path`, the model first."""
    return [path / name for name in (MODEL, DESCRIPTION, OFFLINE, *PAGE, *(f"{RUNTIME}/{name}" for name in FILES))]


def stored_bytes(path: str | PathLike) -> int:
    """The bytes of the model; the page and the runtime are those of every network."""
    return _model(path).stat().st_size


def open_session(path: str | PathLike):
    """The model of a page in ONNX Runtime."""
    return onnxruntime.open_session(_model(path))


def check_edges(session, program: IntegerProgram, path: str | PathLike) -> None:
    """Refuse a session of another program's model."""
    onnxruntime.check_edges(session, program, _model(path))


def float_ops(path: str | PathLike) -> list[str]:
    """The operations of the model that ONNX Runtime computes in floating point."""
    return onnxruntime.float_ops(_model(path))


def operations(path: str | PathLike) -> list:
    """The operations of the model, as read back from it."""
    return onnxruntime.operations(_model(path))


def emit_float(program: IntegerProgram, path: str | PathLike) -> None:
    """The float32 network behind the program, in a folder as a page has it."""
    Path(path).mkdir(parents=True, exist_ok=True)
    onnxruntime.emit_float(program, _model(path))


def _model(path: str | PathLike) -> Path:
    return Path(path) / MODEL


def _picture(program: IntegerProgram) -> tuple[int, int, int] | None:
    """(channels, height, width) of the input, None where it is no picture."""
    edge: Input = program.inputs[0]
    value = network_input(program, edge)
    is_real = isinstance(value.grid, Grid) and (edge.image is not None or not edge.codes)
    if not is_real or len(value.shape) != 3 or value.shape[0] not in (1, 3):
        return None
    return tuple(map(int, value.shape))


def _scores(program: IntegerProgram) -> Output | None:
    """The first output that holds a score for each of several classes."""
    for edge in program.outputs:
        value = program.value(edge.value)
        if not edge.codes and isinstance(value.grid, Grid) and len(value.shape) == 1 and value.shape[0] > 1:
            return edge
    return None


def _offline(files: Mapping[str, bytes]) -> bytes:
    """A script with the content of files by name, for pages that are opened from disk."""
    entries = {name: base64.b64encode(content).decode() for name, content in files.items()}
    return f"window.offline = {json.dumps(entries)};\n".encode()
