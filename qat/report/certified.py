"""The certificate of a run's files as the page shows it: rows of text."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from qat import certificate
from qat.errors import ExportError, ReportError
from qat.report import formats


@dataclass(frozen=True)
class FileRow:
    """One exported file.

    sha256: lines as the command sha256sum writes them. operations: "9 QLinearConv uint8, ..."; data_codes,
    random_codes: "0 of 3,590".
    """

    runtime: str
    file: str
    bytes: str
    sha256: tuple[str, ...]
    operations: str
    float_ops: int
    data_codes: str
    random_codes: str
    equal: bool


@dataclass(frozen=True)
class LayerRow:
    """One layer. theory: bytes of its weights at their true width; stored: what each file takes for them, by runtime.

    worst_case, data: bits of its widest accumulator, for any input and for what was seen.
    """

    name: str
    weight_bits: str
    theory: str
    stored: tuple[str, ...]
    worst_case: str
    data: str


@dataclass(frozen=True)
class Certified:
    """What certificate.json says. data: "the test split, 1,797 samples"; margin: of the widest accumulator."""

    runtimes: tuple[str, ...]
    files: tuple[FileRow, ...]
    layers: tuple[LayerRow, ...]
    data: str
    margin: str


def read_certified(directory: Path) -> Certified | None:
    """The certificate in the directory of an export; None where there is none. Raises `ReportError` for damage."""
    if not (directory / certificate.CERTIFICATE_JSON).exists():
        return None
    try:
        content = certificate.read(directory)
        files = content["files"]
        return Certified(
            runtimes=tuple(files),
            files=tuple(_file_row(runtime, entry) for runtime, entry in files.items()),
            layers=tuple(
                _layer_row(layer, files) for layer in content["program"]["layers"]
                if "accumulator_bits" in layer or "weights" in layer
            ),
            data=_data(content.get("data")),
            margin=_margin(content["program"]["accumulators"]),
        )  # fmt: skip
    except (ExportError, LookupError, TypeError, AttributeError, ValueError) as error:
        path = directory / certificate.CERTIFICATE_JSON
        raise ReportError(f"{path} is damaged ({error}); write it again with qat-verify.") from error


def _file_row(runtime: str, entry: Mapping) -> FileRow:
    codes = [entry[key] for key in ("data_codes", "random_codes")]
    return FileRow(
        runtime=runtime,
        file=entry["file"],
        bytes=formats.count_text(entry["bytes"]),
        sha256=tuple(f"{digest}  {name}" for name, digest in entry["sha256"].items()),
        operations=", ".join(f"{row['count']} {row['kind']} {row['dtype']}" for row in entry["operations"]),
        float_ops=len(entry["float_ops"]),
        data_codes=_codes(codes[0]),
        random_codes=_codes(codes[1]),
        equal=not entry["float_ops"] and not any(found and found["differing"] for found in codes),
    )


def _codes(found: Mapping | None) -> str:
    return formats.ABSENT if found is None else f"{found['differing']:,} of {found['total']:,}"


def _layer_row(layer: Mapping, files: Mapping[str, Mapping]) -> LayerRow:
    reach = layer.get("accumulator_bits") or {}
    weights, bits = layer.get("weights"), layer.get("weight_bits")
    return LayerRow(
        name=layer["name"],
        weight_bits=formats.ABSENT if bits is None else str(bits),
        theory=formats.ABSENT if bits is None else formats.count_text(-(-bits * weights // 8)),
        stored=tuple(_stored(layer["name"], entry) if bits else formats.ABSENT for entry in files.values()),
        worst_case=_bits(reach.get("worst_case")),
        data=_bits(reach.get("data")),
    )


def _stored(layer: str, entry: Mapping) -> str:
    """Bytes that a file has for the constants of a layer, where it names them after it."""
    mine = [row["bytes"] for row in entry["weights"] if row["name"] == layer or row["name"].startswith(f"{layer}/")]
    return formats.count_text(sum(mine)) if mine else formats.ABSENT


def _bits(bits: int | None) -> str:
    return formats.ABSENT if bits is None else str(bits)


def _data(found: Mapping | None) -> str:
    return "no data" if found is None else f"the {found['split']} split, {found['samples']:,} samples"


def _margin(found: Mapping) -> str:
    if found["worst_case"] is None:
        return "nothing is accumulated"
    seen = "" if found["data"] is None else f", {found['data']} bits for the data"
    worst, available = found["worst_case"], found["available"]
    return f"the widest accumulator takes {worst} of {available} bits for any input ({available - worst} spare){seen}"
