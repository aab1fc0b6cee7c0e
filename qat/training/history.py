"""What happened in every epoch: phase, widths, learning rate, metrics, and how well each layer is represented."""

import math
from collections.abc import Mapping

from torch import Tensor

from qat.schedule import PHASES
from qat.training.discovery import learning_rate, optimizer_of


class History:
    """Entries of `history.json`, one for each epoch; plain numbers and strings, so that a checkpoint can hold them."""

    def __init__(self, entries: list[dict] | None = None):
        self.entries = entries or []

    def add(self, trainer, handle, metrics: dict[str, Tensor] | None = None, label: str = "qat") -> dict[str, float]:
        """Write the entry of the epoch that ends now; returns its numbers for a logger, named `label/...`.

        metrics: those of this epoch so far, by default all that the trainer holds. Written again in the same epoch the
        entry keeps what was measured of the layers. A logger gets the phase as its place in `PHASES`.
        """
        last = self.entries[-1] if self.entries else None
        layers = last["layers"] if last is not None and last["epoch"] == trainer.current_epoch else {}
        for name, quantizer in handle.quantizers.items():
            if quantizer.measured is not None:
                sqnr, clipped = quantizer.measured
                layers[name] = {"sqnr_db": finite(sqnr), "clip_share": clipped}
                quantizer.measured = None
        widths = {
            role: [q.bits for n, q in handle.quantizers.items() if handle.plan.sites[n].role == role]
            for role in ("weight", "activation")
        }
        entry = {
            "epoch": trainer.current_epoch,
            "step": trainer.global_step,
            "phase": handle.state.phase,
            "weight_bits": min(widths["weight"]) if handle.state.fake_quantize else 32,
            "activation_bits": min(widths["activation"], default=32) if handle.state.fake_quantize else 32,
            "learning_rate": learning_rate(optimizer_of(trainer, handle.module)),
            "metrics": _numbers(trainer.callback_metrics if metrics is None else metrics),
            "layers": layers,
        }
        # an epoch that runs again, from an earlier checkpoint or in a new fit, replaces what was written of it
        self.entries = [earlier for earlier in self.entries if earlier["epoch"] < entry["epoch"]]
        self.entries.append(entry)
        numbers = {f"{label}/{key}": float(entry[key]) for key in ("weight_bits", "activation_bits")}
        numbers[f"{label}/phase"] = float(PHASES.index(entry["phase"]))
        for name, measured in layers.items():
            numbers.update({f"{label}/{key}/{name}": value for key, value in measured.items() if value is not None})
        return numbers


def _numbers(metrics: Mapping[str, Tensor]) -> dict[str, float | None]:
    return {name: finite(float(value)) for name, value in metrics.items() if value.numel() == 1}


def finite(value: float) -> float | None:
    """JSON has neither NaN nor infinity: a loss that diverged, the ratio of a layer represented without any error."""
    return value if math.isfinite(value) else None
