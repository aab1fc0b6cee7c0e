"""A .pt2 file: what torch.export saves, with the graph's text compressed and a description of the program."""

import io
import json
import zipfile
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from qat.errors import ExportError

#: The extra file that holds `emitters.description`, as JSON.
DESCRIPTION = "description.json"
#: Tensors begin at multiples of this in the file, as torch writes them.
ALIGNMENT = 64
#: Of a header in a zip file, before the name.
HEADER_BYTES = 30
#: The text of a graph is twenty times as large as compressed, and larger than the weights of a small network.
_COMPRESSED = (".json", ".pt")


def archived(graph: ExportedProgram, described: Mapping[str, Any]) -> bytes:
    """The bytes of a .pt2 file; equal graphs have equal ones."""
    text = json.dumps(described, separators=(",", ":"))
    whole = io.BytesIO()
    torch.export.save(graph, whole, extra_files={DESCRIPTION: text})
    packed = io.BytesIO()
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(packed, "w") as target:
        for entry in source.infolist():
            written = zipfile.ZipInfo(entry.filename)
            if entry.filename.endswith(_COMPRESSED):
                written.compress_type = zipfile.ZIP_DEFLATED
            else:
                written.extra = _padding(packed.tell() + HEADER_BYTES + len(entry.filename))
            target.writestr(written, source.read(entry))
    return packed.getvalue()


def _padding(offset: int) -> bytes:
    """An extra field after which content begins at a multiple of `ALIGNMENT`, as torch pads ("FB")."""
    room = -(offset + 4) % ALIGNMENT
    return b"FB" + room.to_bytes(2, "little") + bytes(room)


def read(path: str | PathLike) -> tuple[ExportedProgram, dict[str, Any]]:
    """The graph and the description in a file. Raises `ExportError` where there is none of this package."""
    if not Path(path).is_file():
        raise ExportError(f"{path} does not exist, or is no file; give the path that the program was exported to.")
    files = {DESCRIPTION: ""}
    try:
        with Path(path).open("rb") as file:  # by its path torch takes names that end in .pt2 alone
            graph = torch.export.load(file, extra_files=files)
        described = json.loads(files[DESCRIPTION])
        if not all(isinstance(described.get(key), dict) for key in ("inputs", "outputs")):
            raise ValueError("it says nothing of its inputs and outputs")
    except Exception as error:  # torch's errors share no base with others
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise ExportError(f"{path} is no .pt2 file of a program ({reason}); export the program again.") from error
    return graph, described
