"""Which layers lose most, and what to try next for each, as overrides that can be pasted after `qat-train`."""

import glob
import json
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from qat.report.formats import bytes_text
from qat.report.records import EpochRecord, Layer, RunRecord

#: Signal to quantization noise, in dB, from which a layer needs no remedy: noise of 2 % of the signal's amplitude,
#: what a well-used grid of 8 bits reaches.
SOUND_DB = 35.0
#: Rise between the last two quarters of training at the final width, in dB, that says that training has not finished.
CLIMBING_DB = 0.5
WIDE_BITS = 8
MOST_LAYERS = 5

#: What the history calls the quantizer of a layer's operand, behind the layer's name.
_HISTORY_NAMES = {"weights": "weight", "activations": "output"}


@dataclass(frozen=True)
class Advice:
    """What to try for one layer.

    operand: "weights" or "activations", the one that loses more, at `sqnr_db`. rule: settings of a `qat.Rule` for
    this layer, None if the remedy is not one. override: setting of the whole run, None if the remedy is a rule or the
    setting is not known. cost: what it takes.
    """

    layer: str
    operand: str
    bits: int | None
    sqnr_db: float
    remedy: str
    cost: str
    rule: tuple[str, int] | None = None
    override: str | None = None


def advise(run: RunRecord, history: Sequence[EpochRecord], per_tensor: Collection[str] = ()) -> list[Advice]:
    """The layers below `SOUND_DB`, worst first, at most `MOST_LAYERS`, each with the cheapest remedy not yet in use.

    per_tensor: names of the layers whose output channels share one weight scale.
    """
    worst = [(value, layer, operand) for layer in run.layers for value, operand in [_worst_operand(layer)] if operand]
    worst = sorted((entry for entry in worst if entry[0] < SOUND_DB), key=lambda entry: (entry[0], entry[1].name))
    return [_advice(layer, operand, run, history, per_tensor) for _, layer, operand in worst[:MOST_LAYERS]]


def overrides(advice: Sequence[Advice]) -> list[str]:
    """The command line's form of all the advice together, quoted for a shell; the rules replace those of the recipe."""
    settings = list(dict.fromkeys(entry.override for entry in advice if entry.override))
    rules = [entry for entry in advice if entry.rule]
    if not rules:
        return settings
    written = ", ".join(
        f"{{name: {json.dumps(glob.escape(entry.layer), ensure_ascii=False)}, {entry.rule[0]}: {entry.rule[1]}}}"
        for entry in rules
    )
    return [_shell_quoted(f"quant.rules=[{written}]"), *settings]


def python_rules(advice: Sequence[Advice]) -> list[str]:
    """The same rules as they are written in Python."""
    return [
        f"qat.Rule({json.dumps(glob.escape(entry.layer), ensure_ascii=False)}, {entry.rule[0]}={entry.rule[1]})"
        for entry in advice
        if entry.rule
    ]


def is_climbing(values: Sequence[float]) -> bool:
    """Whether SQNR, one value in dB per epoch at the final width, still rises at the end. Needs four epochs."""
    quarter = len(values) // 4
    if quarter == 0:
        return False
    return (sum(values[-quarter:]) - sum(values[-2 * quarter : -quarter])) / quarter >= CLIMBING_DB


def _worst_operand(layer: Layer) -> tuple[float, str | None]:
    measured = [(layer.sqnr_db, "weights"), (layer.activation_sqnr_db, "activations")]
    return min(((value, operand) for value, operand in measured if value is not None), default=(math.inf, None))


def _advice(layer: Layer, operand: str, run: RunRecord, history, per_tensor: Collection[str]) -> Advice:
    bits = layer.weight_bits if operand == "weights" else layer.activation_bits
    found = {"layer": layer.name, "operand": operand, "bits": bits, "sqnr_db": _worst_operand(layer)[0]}
    if operand == "weights" and layer.name in per_tensor:
        return Advice(
            **found,
            remedy="one scale per channel",
            cost="4 bytes a channel",
            override="quant.weight.granularity=per_channel",
        )
    if is_climbing(_at_final_width(f"{layer.name}.{_HISTORY_NAMES[operand]}", history)):
        return Advice(**found, remedy="train longer, it still improves", **_longer(run, history))
    if bits is not None and bits < WIDE_BITS:
        setting = "weight_bits" if operand == "weights" else "activation_bits"
        return Advice(
            **found, remedy=f"keep at {WIDE_BITS} bits", cost=_cost(layer, operand, bits), rule=(setting, WIDE_BITS)
        )
    return Advice(**found, remedy="train longer", **_longer(run, history))


def _at_final_width(quantizer: str, history: Sequence[EpochRecord]) -> list[float]:
    if not history:
        return []
    final = (history[-1].weight_bits, history[-1].activation_bits)
    epochs = [record for record in history if (record.weight_bits, record.activation_bits) == final]
    return [record.sqnr_db[quantizer] for record in epochs if quantizer in record.sqnr_db]


def _longer(run: RunRecord, history: Sequence[EpochRecord]) -> dict[str, str | None]:
    epochs = run.epochs or len(history)
    return {"cost": "twice the training", "override": f"trainer.max_epochs={2 * epochs}" if epochs else None}


def _cost(layer: Layer, operand: str, bits: int) -> str:
    if operand == "activations":
        return "no bytes"
    if layer.weights is None:
        return f"{WIDE_BITS / bits:.3g}× its weights"
    return f"+{bytes_text(layer.weights * (WIDE_BITS - bits) / 8)}"


def _shell_quoted(text: str) -> str:
    quoted = text.replace("'", "'\"'\"'")
    return f"'{quoted}'"
