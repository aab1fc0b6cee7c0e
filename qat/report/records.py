"""What a run left behind, as frozen values: `integer/report.json` and `integer/history.json`, read and checked.

Pieces that are absent become None or empty and are said to be missing where they would be shown; pieces that are
damaged raise `ReportError`. A number that is NaN or infinite counts as absent: it cannot be drawn or compared.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from qat.errors import ReportError

#: Bytes of a weight in the float network that sizes are compared to.
FLOAT_BYTES = 4

#: The order in which the stages of a network are named everywhere.
STAGES = ("float", "fake_quant", "integer")
#: What a report calls the last of them where the exported file is not integer. `RunRecord` has it as "integer", and
#: `RunRecord.way` says what it is.
EXPORTED = "exported"
#: The way of an integer file.
STATIC = "static"

#: What a run's conditions say of float metrics that are those of its own weights, trained for integers.
TAKEN_OUT = "trained, with quantization taken out"

_LARGEST_FILE = 64 * 2**20  # bytes; a history of a thousand epochs of a hundred layers has about 10 MB

Item = TypeVar("Item")


@dataclass(frozen=True)
class Layer:
    """One layer of the integer program.

    name: module path. weights: their count. bytes: size at true width, float_bytes: in float32. sqnr_db,
    activation_sqnr_db: signal to quantization noise of the weights and of the output, in dB. clip_share: share of the
    output values outside the grid.
    """

    name: str
    kind: str | None = None
    weight_bits: int | None = None
    activation_bits: int | None = None
    weights: int | None = None
    bytes: int | None = None
    float_bytes: int | None = None
    sqnr_db: float | None = None
    activation_sqnr_db: float | None = None
    clip_share: float | None = None


@dataclass(frozen=True)
class Mismatch:
    """Output codes of one backend that differ from the reference interpreter, of how many, by how many steps."""

    differing: int
    total: int
    max_lsb: int | None = None


@dataclass(frozen=True)
class RunRecord:
    """`report.json`. metrics: stage -> metric -> value; size_bytes, latency_ms: stage -> value; see `STAGES`.

    float_ops: operations of the exported file that work on float tensors; None where nobody looked.
    way: "static" of an integer file, else "dynamic", "weight-only", "fp16" or "fp32".
    as_exported: of a file that is not integer, whether each of its nodes computes what the program's does.
    islands: layers that it computes in float on purpose, of which island_codes differ from the program's.
    nonlinear_ms: latency with softmax, norms and division as "integer" and as "float_island", where there are any.
    """

    recipe: str | None = None
    seed: int | None = None
    epochs: int | None = None
    split: str | None = None
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    size_bytes: Mapping[str, float] = field(default_factory=dict)
    float_ops: tuple[str, ...] | None = None
    islands: tuple[str, ...] = ()
    island_codes: Mismatch | None = None
    mismatches: Mapping[str, Mismatch] = field(default_factory=dict)
    latency_ms: Mapping[str, float] = field(default_factory=dict)
    nonlinear_ms: Mapping[str, float] = field(default_factory=dict)
    conditions: Mapping[str, str] = field(default_factory=dict)
    layers: tuple[Layer, ...] = ()
    way: str = STATIC
    as_exported: bool = False

    @property
    def is_integer(self) -> bool:
        """Whether the network was quantized to be integer throughout."""
        return self.way == STATIC

    @property
    def file_label(self) -> str:
        """What the exported file is called beside the float network."""
        return "integer" if self.is_integer else self.way

    @property
    def metric(self) -> str | None:
        """The metric of the headline: accuracy where there is one, else the first."""
        names = [name for stage in reversed(STAGES) for name in self.metrics.get(stage, {})]
        return "accuracy" if "accuracy" in names else (names[0] if names else None)

    def metric_of(self, stage: str) -> float | None:
        """Value of the headline's metric at `stage`."""
        return self.metrics.get(stage, {}).get(self.metric)

    @property
    def has_float_baseline(self) -> bool:
        """Whether the float metrics are those of a network trained in float, and so something to compare with."""
        return bool(self.metrics.get("float")) and self.conditions.get("float_metrics") != TAKEN_OUT

    @property
    def stage_labels(self) -> dict[str, str]:
        """What the stages are called beside their metrics."""
        float_label = "quantization taken out" if self.conditions.get("float_metrics") == TAKEN_OUT else "float"
        return {"float": float_label, "fake_quant": "fake-quantized", "integer": self.file_label}

    @property
    def size_ratio(self) -> float | None:
        """How many times smaller the integer file is than the float one."""
        return _ratio(self.size_bytes)

    @property
    def latency_ratio(self) -> float | None:
        """How many times faster the integer file runs than the float one."""
        return _ratio(self.latency_ms)

    @property
    def bits_per_weight(self) -> float | None:
        """Mean width over all weights, in bits."""
        weighted = [(layer.weights, layer.weight_bits) for layer in self.layers if layer.weights and layer.weight_bits]
        count = sum(weights for weights, _ in weighted)
        return sum(weights * bits for weights, bits in weighted) / count if count else None

    @property
    def runtime_mismatches(self) -> dict[str, Mismatch]:
        """Those of the runtimes; the fake-quantized model, which computes in float, is no runtime."""
        return {backend: mismatch for backend, mismatch in self.mismatches.items() if backend != "fake_quant"}

    @property
    def certified(self) -> bool | None:
        """Whether the file is integer and equal to the program on every runtime; None where that was not checked."""
        runtimes = self.runtime_mismatches
        if not self.is_integer:
            return False
        if self.float_ops or any(mismatch.differing for mismatch in runtimes.values()):
            return False
        checked = self.float_ops is not None and any(mismatch.total for mismatch in runtimes.values())
        return True if checked else None

    @property
    def equal_but_islands(self) -> bool:
        """Whether the file is no integer file for its float islands alone, and equal to the program but for those."""
        differ = any(mismatch.differing for mismatch in self.runtime_mismatches.values())
        return bool(self.float_ops and self.islands) and not differ


@dataclass(frozen=True)
class EpochRecord:
    """One epoch of `history.json`. weight_bits, activation_bits: None if unset.

    sqnr_db, clip_share: quantizer, such as `conv1.weight` or `conv1.output`, -> value.
    """

    epoch: int
    phase: str
    step: int | None = None
    weight_bits: int | None = None
    activation_bits: int | None = None
    learning_rate: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    sqnr_db: Mapping[str, float] = field(default_factory=dict)
    clip_share: Mapping[str, float] = field(default_factory=dict)


def read_run(path: Path) -> RunRecord:
    """The record in a `report.json`. Raises `ReportError` where it is missing or damaged."""
    return _Reader(path, "train again").parse(_run)


def read_history(path: Path) -> tuple[EpochRecord, ...]:
    """The epochs in a `history.json`, none where the file is missing. Raises `ReportError` where it is damaged."""
    if not path.exists():
        return ()
    return _Reader(path, "delete it, or train again").parse(_history)


class _Damage(Exception):
    """Where a file is not what it should be; turned into a `ReportError` with the file's name."""


class _Reader:
    """Parses one json file and names it, and the remedy, in every error."""

    def __init__(self, path: Path, remedy: str):
        self.path, self.remedy = path, remedy

    def parse(self, build: Callable[[Mapping], Item]) -> Item:
        try:
            if self.path.stat().st_size > _LARGEST_FILE:
                raise _Damage(f"has {self.path.stat().st_size} bytes, at most {_LARGEST_FILE} are read")
            return build(_mapping(json.loads(self.path.read_text(encoding="utf-8")), "it"))
        except FileNotFoundError as error:
            raise ReportError(f"{self.path} is missing; finish the run, or {self.remedy}.") from error
        except OSError as error:
            raise ReportError(f"{self.path} cannot be read ({error.strerror}); check its permissions.") from error
        except _Damage as damage:
            raise ReportError(f"{self.path} is damaged ({damage}); {self.remedy}.") from damage
        except (ValueError, RecursionError) as error:  # not json, or not text at all
            raise ReportError(f"{self.path} is damaged (not json: {error}); {self.remedy}.") from error


def _run(data: Mapping) -> RunRecord:
    metrics = _mapping(data.get("metrics"), "metrics")
    mismatches = _mapping(data.get("mismatches"), "mismatches")
    conditions = _mapping(data.get("conditions"), "conditions")
    float_ops, islands = data.get("float_ops"), data.get("island_codes")
    return RunRecord(
        recipe=_text(data.get("recipe"), "recipe"),
        seed=_integer(data.get("seed"), "seed"),
        epochs=_integer(data.get("epochs"), "epochs"),
        split=_text(data.get("split"), "split"),
        metrics=_by_stage({stage: _numbers(values, f"metrics.{stage}") for stage, values in metrics.items()}),
        size_bytes=_by_stage(_numbers(data.get("size_bytes"), "size_bytes")),
        float_ops=None if float_ops is None else tuple(str(name) for name in _list(float_ops, "float_ops")),
        islands=tuple(str(name) for name in _list(data.get("islands"), "islands")),
        island_codes=None if islands is None else _mismatch(islands, "island_codes"),
        mismatches={name: _mismatch(entry, f"mismatches.{name}") for name, entry in mismatches.items()},
        latency_ms=_by_stage(_numbers(data.get("latency_ms"), "latency_ms")),
        nonlinear_ms=_numbers(data.get("nonlinear_ms"), "nonlinear_ms"),
        conditions={name: _condition(value) for name, value in conditions.items()},
        layers=tuple(_layer(entry, f"layers[{i}]") for i, entry in enumerate(_list(data.get("layers"), "layers"))),
        way=_text(data.get("way"), "way") or STATIC,
        as_exported=data.get("as_exported") is True,
    )


def _by_stage(values: dict) -> dict:
    """Values by stage, those of a file that is not integer under the last of `STAGES`."""
    return {STAGES[-1] if name == EXPORTED else name: value for name, value in values.items()}


def _layer(data, what: str) -> Layer:
    data = _mapping(data, what)
    name = _text(data.get("name"), f"{what}.name")
    if name is None:
        raise _Damage(f"{what} has no name")
    keys = ("weight_bits", "activation_bits", "weights", "bytes", "float_bytes")
    real = ("sqnr_db", "activation_sqnr_db", "clip_share")
    whole = {key: _integer(data.get(key), f"{what}.{key}") for key in keys}
    if whole["float_bytes"] is None and whole["weights"] is not None:
        whole["float_bytes"] = whole["weights"] * FLOAT_BYTES
    return Layer(
        name=name,
        kind=_text(data.get("kind"), f"{what}.kind"),
        **whole,
        **{key: _number(data.get(key), f"{what}.{key}") for key in real},
    )


def _mismatch(data, what: str) -> Mismatch:
    data = _mapping(data, what)
    differing, total, max_lsb = (_integer(data.get(key), f"{what}.{key}") for key in ("differing", "total", "max_lsb"))
    if differing is None or total is None:
        raise _Damage(f"{what} lacks differing or total")
    return Mismatch(differing, total, max_lsb)


def _history(data: Mapping) -> tuple[EpochRecord, ...]:
    return tuple(_epoch(entry, f"epochs[{i}]") for i, entry in enumerate(_list(data.get("epochs"), "epochs")))


def _epoch(data, what: str) -> EpochRecord:
    data = _mapping(data, what)
    epoch = _integer(data.get("epoch"), f"{what}.epoch")
    if epoch is None:
        raise _Damage(f"{what} has no epoch")
    layers = _mapping(data.get("layers"), f"{what}.layers")
    layers = {name: _numbers(values, f"{what}.layers.{name}") for name, values in layers.items()}
    whole = ("step", "weight_bits", "activation_bits")
    return EpochRecord(
        epoch=epoch,
        phase=_text(data.get("phase"), f"{what}.phase") or "",
        **{key: _integer(data.get(key), f"{what}.{key}") for key in whole},
        learning_rate=_number(data.get("learning_rate"), f"{what}.learning_rate"),
        metrics=_numbers(data.get("metrics"), f"{what}.metrics"),
        sqnr_db={name: values["sqnr_db"] for name, values in layers.items() if "sqnr_db" in values},
        clip_share={name: values["clip_share"] for name, values in layers.items() if "clip_share" in values},
    )


def _mapping(value, what: str) -> Mapping:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise _Damage(f"{what} is not a mapping")
    return value


def _list(value, what: str) -> list:
    if value is None:
        return []
    if not isinstance(value, list):
        raise _Damage(f"{what} is not a list")
    return value


def _numbers(value, what: str) -> dict[str, float]:
    """Name -> number, without the absent ones."""
    numbers = {name: _number(entry, f"{what}.{name}") for name, entry in _mapping(value, what).items()}
    return {name: number for name, number in numbers.items() if number is not None}


def _number(value, what: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _Damage(f"{what} is {value!r}, not a number")
    try:
        return value if math.isfinite(value) else None
    except OverflowError as error:
        raise _Damage(f"{what} is an integer beyond any float") from error


def _integer(value, what: str) -> int | None:
    number = _number(value, what)
    if number is not None and number != int(number):
        raise _Damage(f"{what} is {number}, not an integer")
    return None if number is None else int(number)


def _text(value, what: str) -> str | None:
    if value is not None and not isinstance(value, str):
        raise _Damage(f"{what} is {value!r}, not a text")
    return value


def _condition(value) -> str:
    """A list of words as words, and anything else that is no text as json."""
    if isinstance(value, list) and all(isinstance(entry, str) for entry in value):
        return ", ".join(value) or "none"
    if value == {}:
        return "none"
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _ratio(values: Mapping[str, float]) -> float | None:
    """float / integer where both are known."""
    if not values.get("float") or not values.get("integer"):
        return None
    return values["float"] / values["integer"]
