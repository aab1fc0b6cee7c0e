"""Programs on disk: program.json (operations, values) and program.safetensors (packed weights, biases, scales).

The bytes hold no time and no path, so equal programs give equal files. Both files are written under temporary names and
renamed, the json last: with its digests of itself and of the tensors, a pair that does not belong together is an error.
Reading trusts nothing: sizes are bounded before anything is read, every field is checked for its type and range, and
every tensor for its dtype and shape.
"""

import hashlib
import json
import stat
from os import PathLike
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from qat.errors import ProgramError
from qat.files import written_whole
from qat.integer.codec import SECTIONS, Decoder, Encoder
from qat.integer.program import IntegerProgram

VERSION = 1
JSON_NAME, TENSORS_NAME = "program.json", "program.safetensors"
#: Largest files that are read: a thousand times those of the networks this is for (a ResNet-20 has 27 kB of json).
MAX_JSON_BYTES, MAX_TENSORS_BYTES, MAX_HEADER_BYTES = 2**25, 2**32, 2**23
#: Most brackets and commas of a json, each of which may cost a Python object: 2^20 take 100 MB.
MAX_JSON_ITEMS = 2**20
_FIELDS = {"version", *SECTIONS, "tensors_sha256", "sha256"}


def save(program: IntegerProgram, directory: str | PathLike) -> None:
    """Write both files into `directory`, which is made where there is none. Raises `ExportError` where it cannot be."""
    directory = Path(directory)
    document, content = _encoded(program)
    written = (json.dumps(document, sort_keys=True, indent=1) + "\n").encode()
    with written_whole(directory / JSON_NAME, written), written_whole(directory / TENSORS_NAME, content):
        pass


def digest(program: IntegerProgram) -> str:
    """What tells the program from every other: the "sha256" of its program.json."""
    return _encoded(program)[0]["sha256"]


def _encoded(program: IntegerProgram) -> tuple[dict[str, Any], bytes]:
    """The content of both files, that of the json as an object."""
    encoder = Encoder()
    document: dict[str, Any] = {"version": VERSION} | encoder.program(program)
    content = save_tensors(dict(sorted(encoder.tensors.items())))
    document["tensors_sha256"] = hashlib.sha256(content).hexdigest()
    document["sha256"] = _digest(document)
    return document, content


def load(directory: str | PathLike) -> IntegerProgram:
    """Read what `save` wrote. Raises `ProgramError` for anything else."""
    directory = Path(directory)
    document = _parse(_read(directory / JSON_NAME, MAX_JSON_BYTES), directory / JSON_NAME)
    if document.get("version") != VERSION:
        raise ProgramError(
            f"{directory / JSON_NAME} has version {str(document.get('version'))[:40]!r}, this package reads "
            f"{VERSION}; export the program again."
        )
    # a file of before there were lengths has none
    if set(document) | {"lengths"} != _FIELDS or document.get("sha256") != _digest(document):
        raise ProgramError(
            f"{directory / JSON_NAME} is damaged: its content does not have its digest; export it again."
        )
    document.setdefault("lengths", [])
    content = _read(directory / TENSORS_NAME, MAX_TENSORS_BYTES, document["tensors_sha256"])
    decoder = Decoder(_tensors(content, directory / TENSORS_NAME))
    program = decoder.program({key: document[key] for key in SECTIONS})
    decoder.check_all_used()
    return program


def _digest(document: dict) -> str:
    content = {key: value for key, value in document.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _parse(content: bytes, path: Path) -> dict:
    def unique(pairs: list[tuple[str, Any]]) -> dict:
        document = dict(pairs)
        if len(document) != len(pairs):
            raise ValueError("a key is written twice")
        return document

    def refuse(constant: str):
        raise ValueError(f"{constant} is not a number")

    if sum(map(content.count, (b"[", b"{", b","))) > MAX_JSON_ITEMS:
        raise ProgramError(f"{path} has more than the {MAX_JSON_ITEMS} items that a program takes.")
    try:
        document = json.loads(content.decode(), object_pairs_hook=unique, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise ProgramError(f"{path} is not readable json ({str(error)[:100]}); export the program again.") from error
    if not isinstance(document, dict):
        raise ProgramError(f"{path} holds a {type(document).__name__}, not a program; export the program again.")
    return document


def _tensors(content: bytes, path: Path) -> dict[str, Tensor]:
    if len(content) < 8 or int.from_bytes(content[:8], "little") > min(MAX_HEADER_BYTES, len(content) - 8):
        raise ProgramError(f"{path} is damaged: its header is longer than the file or {MAX_HEADER_BYTES} bytes.")
    try:
        return load_tensors(content)
    except (SafetensorError, KeyError, ValueError, RuntimeError, TypeError) as error:
        raise ProgramError(f"{path} is damaged ({str(error)[:100]}); export the program again.") from error


def _read(path: Path, limit: int, digest: str | None = None) -> bytes:
    """The whole file, if it is a regular one of at most `limit` bytes; nothing is kept of one with another sha256."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ProgramError(f"{path} is no regular file; give the directory a program was saved to.")
        if status.st_size > limit:
            raise ProgramError(f"{path} has {status.st_size} bytes, more than the {limit} that a program takes.")
        with path.open("rb") as file:
            if digest is not None and hashlib.file_digest(file, "sha256").hexdigest() != digest:
                raise ProgramError(f"{path} is damaged, or not of this {JSON_NAME}; export both again.")
            file.seek(0)
            content = file.read(limit + 1)
    except OSError as error:
        raise ProgramError(
            f"{path} cannot be read ({error.strerror}); give the directory a program was saved to."
        ) from error
    if len(content) > limit:
        raise ProgramError(f"{path} has more than the {limit} bytes that a program takes.")
    return content
