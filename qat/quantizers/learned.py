"""Fake quantizer whose step size is trained: LSQ (arXiv:1902.08153), and for affine grids LSQ+ (arXiv:2004.09576)."""

import torch
from torch import Tensor, nn

from qat import functional, kernels
from qat.errors import ObservationError
from qat.functional import SCALE_FLOOR, Grid
from qat.observers import HISTOGRAM_SAMPLE, MSEObserver
from qat.quantizers.base import FakeQuantize
from qat.range_search import choose_scale_mse, sample
from qat.spec import QuantSpec


class LearnedFakeQuantize(FakeQuantize):
    """Scale, and on an affine grid zero point, as parameters; both start where the squared error is least.

    The first forward that quantizes chooses the start and uses it at once; `commit` adds it to the parameters. Until
    then these are 0 and stand for the change from the start, so that training is right even if `commit` comes late
    (compiled code cannot call it). A parameter is never written inside a forward, where a second use of the
    quantizer, a recomputed segment or DDP may still hold it.

    An activation also keeps a histogram while it observes, from which a change of width chooses the new scale.
    """

    def __init__(self, spec: QuantSpec, *, name: str, role: str, scale_shape: tuple[int, ...], axis: int | None):
        observer = None if role == "weight" else MSEObserver(name, scale_shape, axis, spec.group_size)
        if observer is not None:
            observer.sample_size = HISTOGRAM_SAMPLE  # for a start of what is learned
        super().__init__(spec, name=name, role=role, scale_shape=scale_shape, axis=axis, observer=observer)
        self.scale = nn.Parameter(torch.zeros(scale_shape))
        if spec.symmetric:
            self.register_buffer("zero_point", torch.zeros(scale_shape))
        else:
            self.zero_point = nn.Parameter(torch.zeros(scale_shape))
        self.register_buffer("start_scale", torch.zeros(scale_shape))
        self.register_buffer("start_zero_point", torch.zeros(scale_shape))
        self.register_buffer("start_pending", torch.tensor(False))

    def commit(self) -> None:
        """Add the start that the forward pass chose to the parameters."""
        if not self._initialized and self.start_pending and self._start_is_sound:
            with torch.no_grad():
                self._restart(self.start_scale + self.scale, self.start_zero_point + self.zero_point)

    def start_on(self, weight: Tensor | None) -> None:
        """The start of least squared error; left to the first forward where the weight holds nothing to choose by."""
        if weight is None or not weight.numel() or not weight.any() or not weight.isfinite().all():
            return
        self._restart(*choose_scale_mse(weight, self._grid, self.axis, self.spec.group_size))

    def _forget_start(self) -> None:
        super()._forget_start()
        self.start_pending.fill_(False)
        with torch.no_grad():  # without a start, the parameters mean the change from it
            self.scale.zero_()
            self.zero_point.zero_()

    def _observe(self, values: Tensor) -> None:
        if self.observer is not None:
            self.observer.observe(values)
        elif values.numel() == 0:
            raise ObservationError(f"the weight {self.name} is empty; leave its layer out with a rule.")

    def _ready(self, values: Tensor) -> bool:
        if self._has_scale() and (self._initialized or not self.training or self._start_is_sound):
            return True
        if not self.training:
            return False
        scale, zero_point = self._start(values)
        self.start_scale.copy_(scale)
        self.start_zero_point.copy_(zero_point)
        self.start_pending.fill_(True)
        return True

    def _has_scale(self) -> bool:
        return self._initialized or bool(self.start_pending)

    @property
    def _start_is_sound(self) -> bool:
        """Whether the chosen start came from anything but zeros (a branch whose last layer starts at zero).

        A step size at the floor clamps every value to come and could not grow out of it, so it is chosen again.
        """
        return bool(self.start_scale.max() > SCALE_FLOOR)

    def _start(self, values: Tensor) -> tuple[Tensor, Tensor]:
        if self.observer is not None and self.observer.has_observed:
            return self.observer.qparams(self._grid)
        scale, zero_point = choose_scale_mse(values, self._grid, self.axis, self.spec.group_size)
        if not torch.isfinite(scale).all():
            raise ObservationError(
                f"{self.name} holds NaN or infinity when its step size is first chosen; "
                "lower the learning rate or look for the layer that overflows."
            )
        return scale, zero_point

    def _fake_quantize(self, values: Tensor) -> Tensor:
        if not self.training:
            return self._exactly(values)
        grid = self._grid
        scale, zero_point = self._trainable()
        gradient_scale = (self._values_per_scale(values) * grid.quant_max) ** -0.5
        arguments = (grid.quant_min, grid.quant_max, gradient_scale, grid.midrise)
        if self.spec.group_size is not None:
            return self._on_grid(functional.fake_quantize_learned, values, scale, zero_point, *arguments)
        return kernels.fake_quantize_learned(values, scale, zero_point, *arguments, self.axis)

    def _trainable(self) -> tuple[Tensor, Tensor]:
        """Scale and zero point with their gradients."""
        scale, zero_point = self.scale, self.zero_point
        if self._frozen:
            scale, zero_point = scale.detach(), zero_point.detach()
        if self._initialized:
            return scale, zero_point
        return self.start_scale + scale, self.start_zero_point + zero_point

    def _observe_on_tensors(self, values: Tensor, grid: Grid) -> None:
        if self.observer is not None:
            self.observer.observe(values, self.observer_enabled)
        # A search has no place in a graph that runs every step, so compiled code starts from LSQ's own formula: of a
        # weight whose quantizer was not turned on by a schedule (`start_on`), and of an activation.
        grouped = functional.rows(values, self.axis, self.spec.group_size)
        if self.spec.symmetric:
            scale = functional.start_of_lsq(sample(grouped), grid.quant_max)
            zero_point = torch.zeros_like(scale)
        else:
            scale, zero_point = functional.choose_qparams(*torch.aminmax(grouped, dim=-1), grid)
        started = self.start_pending & (self.start_scale.max() > SCALE_FLOOR)
        chosen = self.fake_quantize_enabled & ~self.initialized & ~started
        self.start_scale.copy_(torch.where(chosen, scale, self.start_scale))
        self.start_zero_point.copy_(torch.where(chosen, zero_point, self.start_zero_point))
        self.start_pending.logical_or_(chosen)

    def _fake_quantize_on_tensors(self, values: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
        scale = self.scale + torch.where(self.initialized, 0.0, self.start_scale)
        zero_point = self.zero_point + torch.where(self.initialized, 0.0, self.start_zero_point)
        gradient_scale = torch.rsqrt(self._values_per_scale(values) * grid.quant_max.float())
        gradient_scale = torch.where(self.scales_frozen, 0.0, gradient_scale)
        arguments = (grid.quant_min, grid.quant_max, gradient_scale, grid.midrise)
        rounded = self._on_grid(functional.fake_quantize_learned, values, scale, zero_point, *arguments)
        return rounded, self.initialized | self.start_pending

    def _values_per_scale(self, values: Tensor) -> int:
        """Values of one example (LSQ counts features, not the batch, over which the loss is a mean) per scale."""
        count = values.numel() if self.role == "weight" or values.ndim == 0 else values[0].numel()
        return max(count // max(self.scale.numel(), 1), 1)

    def _qparams_in_force(self) -> tuple[Tensor, Tensor]:
        scale, zero_point = self.scale, self.zero_point
        if not self._initialized:
            scale, zero_point = self.start_scale + scale, self.start_zero_point + zero_point
        grid = self._grid
        point = torch.round(zero_point.detach()).clamp(grid.quant_min, grid.quant_max)
        return scale.detach().clamp(min=SCALE_FLOOR), point.to(torch.int32)

    def _restart(self, scale: Tensor, zero_point: Tensor) -> None:
        with torch.no_grad():
            self.scale.copy_(scale)
            self.zero_point.copy_(zero_point)
        for used_up in (self.start_scale, self.start_zero_point, self.start_pending):
            used_up.zero_()
        self._mark_initialized()
