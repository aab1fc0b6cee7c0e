"""The certificate of a run's files: what they are, what they compute, and that they are equal; derived again at will.

`certificate.json` holds no time, no path and no figure that depends on the machine, so that deriving it again from the
same files gives the same text. The hash of every file is in it; what was measured on data names split and samples.
"""

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qat.emitters import emitter_of, files_of, stored_bytes
from qat.emitters.options import FileOperation
from qat.emitters.samples import outputs_by_name, random_inputs
from qat.errors import ExportError
from qat.files import write_whole
from qat.integer.program import IntegerProgram
from qat.integer.semantics import for_runtime
from qat.verification.accumulators import ACCUMULATOR_BITS, WIDE_ACCUMULATOR_BITS, reaches
from qat.verification.codes import compare
from qat.verification.report import Mismatch, VerificationReport

__all__ = [
    "CERTIFICATE_JSON",
    "Evidence",
    "certificate",
    "check_hashes",
    "differences",
    "largest_seen",
    "read",
    "write",
]

CERTIFICATE_JSON = "certificate.json"
PROGRAM_FILES = ("program.json", "program.safetensors")
#: Batches of random codes on which every file is compared again.
RANDOM_BATCHES, RANDOM_SEED = (1, 7, 24), 31
_LARGEST_FILE = 16 * 2**20
FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What was measured on data. split: of which. report: of all files."""

    split: str
    report: VerificationReport


def certificate(program: IntegerProgram, directory: Path, files: Mapping[str, Path], evidence: Evidence | None) -> dict:
    """The certificate of `files`, by runtime, in `directory`, which holds the program that they were made of."""
    return {
        "format": FORMAT,
        "program": _program(program, directory, evidence),
        "files": {runtime: _file(program, runtime, path, evidence) for runtime, path in files.items()},
        "data": None if evidence is None else {"split": evidence.split, "samples": evidence.report.samples},
    }


def write(content: Mapping[str, Any], directory: Path) -> None:
    """Write certificate.json into `directory`, whole or not at all."""
    write_whole(directory / CERTIFICATE_JSON, (json.dumps(content, indent=1, sort_keys=True) + "\n").encode())


def read(directory: Path) -> dict:
    """The certificate in `directory`. Raises `ExportError` where there is none, or it is damaged."""
    path = directory / CERTIFICATE_JSON
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise ValueError(f"it has more than {_LARGEST_FILE} bytes")
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ValueError(f"it is no certificate of format {FORMAT}")
        if not all(isinstance(content.get(key), dict) for key in ("program", "files")):
            raise ValueError("it names no program and no files")
        return content
    except FileNotFoundError as error:
        raise ExportError(f"{path} does not exist; export the run with qat-export, which writes it.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ExportError(f"{path} is damaged ({error}); export the run with qat-export, which writes it.") from error


def check_hashes(directory: Path) -> None:
    """Raise `ExportError` for a file that was changed after it was certified, or is gone."""
    content = read(directory)
    entries = [content["program"], *content["files"].values()]
    for entry in entries:
        hashes = entry.get("sha256") if isinstance(entry, Mapping) else None
        if not isinstance(hashes, Mapping):
            raise ExportError(f"{directory / CERTIFICATE_JSON} is damaged (a file has no hash); export the run again.")
        remedy = "take that of the run back" if entry is content["program"] else "export it again with qat-export"
        for name, expected in hashes.items():
            path = directory / name
            if not path.is_file():
                raise ExportError(f"{path} is certified, but does not exist; {remedy}.")
            if _sha256(path) != expected:
                raise ExportError(
                    f"{path} was changed after it was certified: {CERTIFICATE_JSON} has another sha256; {remedy}."
                )


def differences(certified: Any, derived: Any, place: str = "") -> list[str]:
    """Where two certificates differ, one sentence each: "files.onnxruntime.bytes is 3, certified as 4"."""
    if isinstance(certified, Mapping) and isinstance(derived, Mapping):
        found = []
        for key in sorted({*certified, *derived}):
            inner = f"{place}.{key}" if place else key
            if key not in derived:
                found.append(f"{inner} is certified, and not derived")
            elif key not in certified:
                found.append(f"{inner} is derived, and not certified")
            else:
                found += differences(certified[key], derived[key], inner)
        return found
    if isinstance(certified, list) and isinstance(derived, list) and len(certified) == len(derived):
        return [
            difference
            for index, pair in enumerate(zip(certified, derived, strict=True))
            for difference in differences(*pair, f"{place}[{index}]")
        ]
    return [] if certified == derived else [f"{place} is {_short(derived)}, certified as {_short(certified)}"]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _program(program: IntegerProgram, directory: Path, evidence: Evidence | None) -> dict:
    found = {reach.name: reach for reach in reaches(program, {} if evidence is None else evidence.report.accumulators)}
    layers = []
    for layer in program.layers:
        entry = {"name": layer.name, "kind": layer.kind, "activation_bits": layer.activation_bits}
        if layer.weight_bits is not None:
            entry |= {"weight_bits": layer.weight_bits, "weights": layer.weight_count, "bytes": layer.bytes}
        if layer.name in found:
            reach = found[layer.name]
            entry["accumulator_bits"] = {"worst_case": reach.worst_case, "data": reach.data}
        layers.append(entry)
    return {
        "sha256": {name: _sha256(directory / name) for name in PROGRAM_FILES},
        "layers": layers,
        "accumulators": _margin(found.values()),
        **_theory(program),
    }


def _theory(program: IntegerProgram) -> dict:
    """Bits that the weights take at their true widths, and the bytes of it."""
    bits = sum(layer.weight_bits * layer.weight_count for layer in program.layers if layer.weight_bits is not None)
    return {"weight_bits": bits, "weight_bytes": -(-bits // 8)}


def _margin(found) -> dict:
    """Bits of the widest accumulator of all, for any input and for data, of those there are."""
    found = list(found)
    seen = [reach.data for reach in found if reach.data is not None]
    worst = max((reach.worst_case for reach in found), default=None)
    is_wide = worst is not None and worst > ACCUMULATOR_BITS
    return {
        "available": WIDE_ACCUMULATOR_BITS if is_wide else ACCUMULATOR_BITS,
        "worst_case": worst,
        "data": max(seen, default=None),
    }


def _file(program: IntegerProgram, runtime: str, path: Path, evidence: Evidence | None) -> dict:
    emitter = emitter_of(runtime)
    own = for_runtime(program, runtime)
    paths = files_of(runtime, path)
    operations = emitter.operations(path)
    floats = list(emitter.float_ops(path))
    measured = None if evidence is None else evidence.report.files.get(runtime)
    return {
        "file": path.name,
        "sha256": {part.relative_to(path.parent).as_posix(): _sha256(part) for part in paths},
        "bytes": stored_bytes(runtime, path),
        "operations": _counted(operations),
        "weights": [
            {"name": entry.name, "kind": entry.kind, "dtype": entry.dtype, "bytes": entry.bytes}
            for entry in operations
            if entry.bytes
        ],
        "float_ops": floats,
        # what computes in real numbers rounds otherwise on another machine
        "random_codes": None if floats else dataclasses.asdict(_on_random_codes(emitter, own, path)),
        "data_codes": None if measured is None else dataclasses.asdict(measured.mismatch),
    }


def _counted(operations: list[FileOperation]) -> list[dict]:
    """How many operations of each kind and type there are."""
    counts = Counter((entry.kind, entry.dtype) for entry in operations)
    return [{"kind": kind, "dtype": dtype, "count": count} for (kind, dtype), count in sorted(counts.items())]


def _on_random_codes(emitter, program: IntegerProgram, path: Path) -> Mismatch:
    """Codes of a file that differ from the interpreter's on random inputs."""
    session = emitter.open_session(path)
    emitter.check_edges(session, program, path)
    found = Mismatch(0, 0, 0)
    for inputs in random_inputs(program, RANDOM_BATCHES, any_length=False, seed=RANDOM_SEED):
        found += compare(program, outputs_by_name(program, inputs), emitter.run_session(session, inputs))
    return found


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
