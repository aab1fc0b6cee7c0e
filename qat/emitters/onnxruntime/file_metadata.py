"""What an ONNX file says of itself: the entries of `emitters.description`, as metadata in JSON."""

import json
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError

from qat.emitters.description import description
from qat.errors import ExportError
from qat.integer.program import IntegerProgram


def described(program: IntegerProgram, labels: Sequence[str] = ()) -> dict[str, str]:
    """The metadata of the file of `program`; equal programs and labels have equal ones. labels: names of classes."""
    return {name: json.dumps(entry, separators=(",", ":")) for name, entry in description(program, labels).items()}


def metadata(path: str | PathLike) -> dict[str, Any]:
    """What the file at `path` says of itself, by the names above; of a file of another producer its texts.

    Raises `ExportError` where there is no ONNX file.
    """
    if not Path(path).is_file():
        raise ExportError(f"{path} does not exist, or is no file; give the path that the program was exported to.")
    try:
        model = onnx.load(path, load_external_data=False)
    except (OSError, DecodeError) as error:
        raise ExportError(f"{path} is no ONNX file ({error}); export the program again.") from error
    found = {}
    for entry in model.metadata_props:
        try:
            found[entry.key] = json.loads(entry.value)
        except ValueError:  # a plain text that somebody else put there
            found[entry.key] = entry.value
    return found
