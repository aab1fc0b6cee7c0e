"""Fake quantizer whose scale follows the observed range (integer-only inference: arXiv:1712.05877)."""

import torch
from torch import Tensor

from qat import functional, kernels
from qat.functional import Grid
from qat.observers import MOMENTUM, OBSERVERS
from qat.quantizers.base import FakeQuantize
from qat.spec import QuantSpec


class ObservedFakeQuantize(FakeQuantize):
    """Scale and zero point from an observer, in every training forward that observes.

    A weight is observed as it is now; an activation over the batches so far.
    """

    def __init__(self, spec: QuantSpec, *, name: str, role: str, scale_shape: tuple[int, ...], axis: int | None):
        kind, settings = spec.observer_for(role), {}
        # Only the current weights count; a minimum and maximum ever seen would hold on to weights long gone.
        if role == "weight" and kind == "minmax":
            kind = "moving_average"
        if spec.percentile is not None:
            settings["percentile"] = spec.percentile
        momentum = 1.0 if role == "weight" else MOMENTUM
        observer = OBSERVERS[kind](name, scale_shape, axis, spec.group_size, momentum, **settings)
        super().__init__(spec, name=name, role=role, scale_shape=scale_shape, axis=axis, observer=observer)
        self.register_buffer("scale", torch.ones(scale_shape))
        self.register_buffer("zero_point", torch.zeros(scale_shape, dtype=torch.int32))

    def refresh(self) -> None:
        """Take the scale that the observer's statistics ask for (after they were changed from outside)."""
        if self.observer.has_observed:
            self._restart(*self.observer.qparams(self._grid))

    def _observe(self, values: Tensor) -> None:
        self.observer.observe(values)
        self._restart(*self.observer.qparams(self._grid))

    def _ready(self, values: Tensor) -> bool:
        return self._has_scale()

    def _has_scale(self) -> bool:
        if not self._initialized:
            self._initialized = bool(self.initialized)  # compiled code may have set it
        return self._initialized

    def _fake_quantize(self, values: Tensor) -> Tensor:
        if not self.training or self.spec.group_size is not None:
            return self._exactly(values)
        grid = self._grid
        return kernels.fake_quantize(
            values, self.scale, self.zero_point, grid.quant_min, grid.quant_max, grid.midrise, self.axis
        )

    def _observe_on_tensors(self, values: Tensor, grid: Grid) -> None:
        self.observer.observe(values, self.observer_enabled)
        scale, zero_point = self.observer.qparams(grid)
        self.initialized.logical_or_(self.observer_enabled & (self.observer.batches > 0))
        wanted = self.observer_enabled & self.initialized
        self.scale.copy_(torch.where(wanted, scale, self.scale))
        self.zero_point.copy_(torch.where(wanted, zero_point, self.zero_point))

    def _fake_quantize_on_tensors(self, values: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
        rounded = self._on_grid(
            functional.fake_quantize, values, self.scale, self.zero_point, grid.quant_min, grid.quant_max, grid.midrise
        )
        return rounded, self.initialized

    def _qparams_in_force(self) -> tuple[Tensor, Tensor]:
        return self.scale, self.zero_point

    def _restart(self, scale: Tensor, zero_point: Tensor) -> None:
        # in place is safe: no backward pass reads these buffers, it reads the mask of clamped values
        self.scale.copy_(scale)
        self.zero_point.copy_(zero_point)
        self._mark_initialized()
