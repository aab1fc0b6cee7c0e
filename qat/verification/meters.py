"""Metrics of one backend."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from qat.errors import ConfigurationError


def cloned(metrics: Any) -> dict[str, Any]:
    """A fresh copy of every metric, by name."""
    metered = hasattr(metrics, "items") and all(hasattr(metric, "clone") for _, metric in metrics.items())
    if not metered:
        raise ConfigurationError(
            f"metrics are a {type(metrics).__name__}; give torchmetrics by name, e.g. {{'accuracy': Accuracy(...)}}."
        )
    return {key: metric.clone() for key, metric in metrics.items()}


def update(meters: Mapping[str, Any], backend: str, output: Any, targets: Any) -> None:
    """Show the metrics one batch. backend: whose output it is, for an error."""
    if meters and targets is None:
        raise ConfigurationError("metrics need targets; give batches as (inputs, targets).")
    for name, metric in meters.items():
        try:
            metric.to("cpu").update(tree_map_only(Tensor, Tensor.cpu, output), targets)
        except Exception as error:
            raise ConfigurationError(
                f"metric {name!r} cannot be updated with the {backend} output and the targets ({error}); give a metric "
                "that takes what the network returns."
            ) from error


def numbers(meters: Mapping[str, Any]) -> dict[str, float]:
    """What the metrics came to, by name."""
    return {name: _number(name, metric) for name, metric in meters.items()}


def _number(name: str, metric: Any) -> float:
    value = metric.compute()
    if isinstance(value, Mapping) or torch.as_tensor(value).numel() != 1:
        raise ConfigurationError(f"metric {name!r} does not give one number; choose its average, or leave it out.")
    return float(value)
