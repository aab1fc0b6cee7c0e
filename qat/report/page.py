"""The page: every value of a run as text, handed to the template `report.html.j2`, which escapes it."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined

from qat.report import formats
from qat.report.advice import SOUND_DB, Advice, overrides, python_rules
from qat.report.figures.cost import size_and_latency
from qat.report.figures.layers import sqnr_per_layer, weight_histograms
from qat.report.figures.training import sqnr_over_time, training_curves, widths
from qat.report.files import PREDICTIONS_PNG
from qat.report.records import STAGES, Layer, RunRecord
from qat.report.run import RunFiles

_BACKENDS = {
    "onnxruntime": "ONNX Runtime",
    "litert": "LiteRT",
    "tensorrt": "TensorRT",
    "c": "C",
    "pytorch": "PyTorch",
    "web": "browser",
    "fake_quant": "fake-quantized model",
}


@dataclass(frozen=True)
class Tile:
    """One figure of the headline: what it is, the value, and a line below it."""

    title: str
    value: str
    note: str


def draw(files: RunFiles) -> dict[str, bytes | None]:
    """Name -> PNG of every picture, None where there is nothing to draw."""
    return {
        "training_curves": training_curves(files.history),
        "bits_over_time": widths(files.history, files.run),
        "sqnr_per_layer": sqnr_per_layer(files.run.layers),
        "sqnr_over_time": sqnr_over_time(files.history, files.run),
        "weight_histograms": weight_histograms(files.weights),
        "size_and_latency": size_and_latency(files.run),
        PREDICTIONS_PNG.stem: files.predictions,
    }


def render(files: RunFiles, pictures: Mapping[str, bytes | None]) -> str:
    """The page as one html text that needs no other file and no network."""
    environment = Environment(
        loader=PackageLoader("qat.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    run = files.run
    return environment.get_template("report.html.j2").render(
        run=run,
        title=run.recipe or "run without a recipe",
        tiles=tiles(run),
        metrics=_metric_rows(run),
        stages=run.stage_labels,
        pictures={name: content and _inline(content) for name, content in pictures.items()},
        advice=[_advice_row(entry) for entry in files.advice],
        overrides=overrides(files.advice),
        python_rules=python_rules(files.advice),
        sound_db=f"{SOUND_DB:.0f}",
        measured_layers=any(layer.sqnr_db is not None or layer.activation_sqnr_db is not None for layer in run.layers),
        mismatches=_mismatch_rows(run),
        certified=files.certified,
        backends=_BACKENDS,
        layers=[_layer_row(layer, run) for layer in run.layers],
        total=_total_row(run),
    )


def tiles(run: RunRecord) -> list[Tile]:
    """The headline."""
    metric = run.metric
    integer = run.metric_of("integer")
    beside = [f"{run.stage_labels[stage]} {formats.metric_text(metric, run.metric_of(stage))}" for stage in STAGES[:2]]
    weight_widths = _widths(layer.weight_bits for layer in run.layers if layer.weights)
    activation_widths = _widths(layer.activation_bits for layer in run.layers)
    mean = run.bits_per_weight
    label = run.file_label
    sizes = " → ".join(formats.bytes_text(run.size_bytes.get(stage)) for stage in ("float", "integer"))
    times = " → ".join(formats.milliseconds_text(run.latency_ms.get(stage)) for stage in ("float", "integer"))
    shown = [
        Tile(f"{label} {metric or 'metric'}", formats.metric_text(metric, integer), " · ".join(beside)),
        Tile(
            "bits per weight",
            formats.ABSENT if mean is None else f"{mean:.3g}",
            f"weights {weight_widths} · activations {activation_widths}",
        ),
        Tile(f"size, float / {label}", formats.ratio_text(run.size_ratio), sizes),
        Tile(f"latency, float / {label}", formats.ratio_text(run.latency_ratio), times),
    ]
    if {"integer", "float_island"} <= set(run.nonlinear_ms):
        integer_ms, island_ms = (run.nonlinear_ms[kind] for kind in ("integer", "float_island"))
        times = f"{formats.milliseconds_text(integer_ms)}, as float islands {formats.milliseconds_text(island_ms)}"
        shown.append(Tile("softmax, norms: integer / island", formats.ratio_text(integer_ms / island_ms), times))
    return shown


def _widths(bits) -> str:
    return ", ".join(str(width) for width in sorted({width for width in bits if width})) or formats.ABSENT


def _metric_rows(run: RunRecord) -> list[dict]:
    """One row a metric: its value at every stage, and what the integer file loses on float."""
    names = dict.fromkeys(name for stage in STAGES for name in run.metrics.get(stage, {}))
    rows = []
    for name in names:
        values = {stage: run.metrics.get(stage, {}).get(name) for stage in STAGES}
        rows.append(
            {
                "name": name,
                "values": [formats.metric_text(name, value) for value in values.values()],
                "difference": formats.difference_text(
                    name, values["integer"], values["float"] if run.has_float_baseline else None
                ),
            }
        )
    return rows


def _advice_row(entry: Advice) -> dict[str, str]:
    width = f"{entry.bits}-bit " if entry.bits else ""
    return {
        "layer": entry.layer,
        "loses": f"{width}{entry.operand}",
        "sqnr": formats.decibel_text(entry.sqnr_db),
        "remedy": entry.remedy,
        "cost": entry.cost,
    }


def _mismatch_rows(run: RunRecord) -> list[dict]:
    return [
        {
            "backend": _BACKENDS.get(backend, backend),
            "differing": formats.count_text(mismatch.differing),
            "total": formats.count_text(mismatch.total),
            "max_lsb": formats.count_text(mismatch.max_lsb),
            "equal": mismatch.differing == 0,
            "runtime": backend in run.runtime_mismatches,
        }
        for backend, mismatch in run.mismatches.items()
    ]


def _layer_row(layer: Layer, run: RunRecord) -> dict:
    widest = max((other.float_bytes or 0 for other in run.layers), default=0)
    return {
        "name": layer.name,
        "kind": layer.kind or formats.ABSENT,
        "weight_bits": layer.weight_bits if layer.weights and layer.weight_bits else formats.ABSENT,
        "activation_bits": layer.activation_bits or formats.ABSENT,
        "weights": formats.count_text(layer.weights or None),
        "float_bytes": formats.count_text(layer.float_bytes or None),
        "bytes": formats.count_text(layer.bytes or None),
        "float_share": _percent(layer.float_bytes, widest),
        "integer_share": _percent(layer.bytes, widest),
        "sqnr": formats.decibel_text(layer.sqnr_db),
        "activation_sqnr": formats.decibel_text(layer.activation_sqnr_db),
        "clip_share": formats.share_text(layer.clip_share),
    }


def _total_row(run: RunRecord) -> dict[str, str]:
    weights = sum(layer.weights or 0 for layer in run.layers)
    integer = sum(layer.bytes or 0 for layer in run.layers)
    float_bytes = sum(layer.float_bytes or 0 for layer in run.layers)
    return {
        "weights": formats.count_text(weights),
        "float_bytes": formats.count_text(float_bytes),
        "bytes": formats.count_text(integer),
        "ratio": formats.ratio_text(float_bytes / integer if integer and float_bytes else None),
    }


def _percent(value: int | None, whole: int) -> str:
    return f"{100 * value / whole:.2f}" if value and whole else "0"


def _inline(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode()
