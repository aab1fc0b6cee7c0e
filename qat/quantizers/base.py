"""What all fake quantizers share: state, widths, and the three forms of the forward pass.

The truth is in tensors: buffers (and the parameters of a learned quantizer) that a `state_dict` holds. Eager code reads
Python copies of them, which costs nothing when off and never waits for a device. Compiled code reads the tensors
alone, so that no change of phase or width compiles anything again.
"""

import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from qat import functional
from qat.errors import CheckpointError, ConfigurationError, ObservationError
from qat.folding import KernelWeight
from qat.functional import Grid
from qat.observers import Observer
from qat.range_search import choose_scale_mse
from qat.spec import WIDTHS, QuantSpec
from qat.tracing import is_exporting


@dataclasses.dataclass(frozen=True)
class QuantizationParameters:
    """The grid in force. scale: float32, () or (C,) or (C, groups). zero_point: int64, of the same shape."""

    scale: Tensor
    zero_point: Tensor
    quant_min: int
    quant_max: int
    midrise: bool


class FakeQuantize(nn.Module):
    """Rounds a tensor to an integer grid and returns it in real units.

    spec: the grid at its final width. name: of the quantized tensor, for errors and exported graphs. role: "weight" or
    "activation". axis: the dimension of the channels. bits: the width in force, at least `spec.bits`.

    A quantizer that has met no data yet returns its input as it is (the validation before the first training step),
    and `qparams` raises.
    """

    scale: Tensor
    zero_point: Tensor

    def __init__(
        self,
        spec: QuantSpec,
        *,
        name: str,
        role: str,
        scale_shape: tuple[int, ...],
        axis: int | None,
        observer: Observer | None,
    ):
        super().__init__()
        self.spec = spec
        self.name = name
        self.role = role
        self.axis = axis
        self.scale_shape = scale_shape
        self.observer = observer
        #: whether the kernel takes narrow weights as they are (`qat.folding.KernelWeight.of`)
        self.narrow_kernel = False
        self.measure = False
        self.measured: tuple[float, float] | None = None
        #: where it is a list, everything that eager code rounds is added to it
        self.trail: list[Tensor] | None = None
        self.register_buffer("width", torch.tensor(spec.bits))
        self.register_buffer("quant_min", torch.tensor(spec.quant_min))
        self.register_buffer("quant_max", torch.tensor(spec.quant_max))
        self.register_buffer("midrise", torch.tensor(spec.midrise))
        self.register_buffer("observer_enabled", torch.tensor(True))
        self.register_buffer("fake_quantize_enabled", torch.tensor(True))
        self.register_buffer("scales_frozen", torch.tensor(False))
        self.register_buffer("initialized", torch.tensor(False))
        self._refresh_mirrors()

    # --- state ------------------------------------------------------------------------------------------------------

    @property
    def bits(self) -> int:
        """The width in force."""
        return self._grid.bits

    @property
    def observes(self) -> bool:
        """Whether ranges are observed, in train mode."""
        return self._observes

    @property
    def quantizes(self) -> bool:
        """Whether values are rounded."""
        return self._quantizes

    def set_state(self, observe: bool, fake_quantize: bool) -> None:
        """Turn the observer and the rounding on or off."""
        if (observe, fake_quantize) != (self._observes, self._quantizes):
            self.observer_enabled.fill_(observe)
            self.fake_quantize_enabled.fill_(fake_quantize)
            self._observes, self._quantizes = observe, fake_quantize

    @property
    def freeze_scales(self) -> bool:
        """Whether learned step sizes get no gradient."""
        return self._frozen

    @freeze_scales.setter
    def freeze_scales(self, frozen: bool) -> None:
        if frozen != self._frozen:
            self.scales_frozen.fill_(frozen)
            self._frozen = frozen

    def set_bits(self, bits: int, weight: Tensor | None = None) -> None:
        """Change the width in force, and choose the scale anew for the new grid; nothing if it has that width.

        weight: the tensor itself, if this quantizes a weight: the scale is the one of least squared error on it.
        Otherwise the scale comes from what was observed; with nothing observed yet, from the next batch.
        """
        if bits == self.bits:
            return
        if bits not in WIDTHS or bits < self.spec.bits:
            raise ConfigurationError(
                f"the width of {self.name} cannot become {bits!r} bits; its config ends at {self.spec.bits} bits, "
                "and a width in force lies between that and 16."
            )
        self._set_grid(self.spec.with_bits(bits))
        if not self._quantizes and self.spec.learned:
            self._forget_start()  # what is chosen now would be stale by the time quantization sets in
        elif weight is not None and weight.numel():
            self._restart(*choose_scale_mse(weight, self._grid, self.axis, self.spec.group_size))
        elif self.observer is not None and self.observer.has_observed:
            self._restart(*self.observer.qparams(self._grid))
        else:
            self._forget_start()

    def _forget_start(self) -> None:
        self.initialized.fill_(False)
        self._initialized = False

    def qparams(self) -> QuantizationParameters:
        """The grid that the forward pass uses in eval mode. Raises `ObservationError` before any data was seen."""
        if not self._has_scale():
            raise ObservationError(
                f"{self.name} has no scale yet, since it met no data; "
                "run a training step, or qat.quantize with batches."
            )
        scale, zero_point = self._qparams_in_force()
        grid = self._grid
        return QuantizationParameters(
            scale.clone(), zero_point.to(torch.int64), grid.quant_min, grid.quant_max, grid.midrise
        )

    @property
    def ready(self) -> bool:
        """Whether there is a scale: some data was seen, be it in this forward, or `load_state_dict` brought one."""
        return self._has_scale()

    def scale_in_force(self) -> Tensor:
        """The scale that the forward pass uses, float32, without gradient; valid where `ready`."""
        return self._qparams_in_force()[0].detach()

    def codes(self, x: Tensor) -> Tensor:
        """Integer codes of `x` on the grid in force, int32, of the shape of `x`."""
        parameters = self.qparams()
        arguments = (parameters.quant_min, parameters.quant_max, parameters.midrise)
        return self._on_grid(
            functional.quantize, x.detach().float(), parameters.scale, parameters.zero_point, *arguments
        )

    def kernel_weight(self) -> KernelWeight:
        """How codes of the width in force become the integers of a kernel."""
        return KernelWeight.of(self._grid, self.narrow_kernel)

    def learned_parameters(self) -> Iterator[nn.Parameter]:
        """The parameters that are trained by gradient."""
        return self.parameters()

    def check(self) -> None:
        """Raise `ObservationError` if the observer met NaN or infinity where it could not say so at once."""
        if self.observer is not None:
            self.observer.check()

    def refresh(self) -> None:
        """Take the scale that the observer's statistics ask for (after they were changed from outside)."""

    def start_on(self, weight: Tensor | None) -> None:
        """Choose the first scale from the weight itself, for compiled code, which has no place for a search."""

    def begin(self) -> None:
        """Told when the network's forward begins: what is observed until `end` is one batch."""
        if self.observer is not None:
            self.observer.begin_forward()

    def end(self) -> None:
        """Told when the network's forward has returned."""
        if self.observer is not None:
            self.observer.end_forward()

    def commit(self) -> None:
        """Write what the forward pass chose into parameters; called when the network's forward has returned."""

    # --- forward ----------------------------------------------------------------------------------------------------

    def forward(self, x: Tensor) -> Tensor:
        """x: real, any shape and float type. Returns it rounded to the grid, in its own type; computes in float32.

        Autocast does not touch what happens here: elementwise operations and reductions keep their float32 inputs.
        """
        if is_exporting():
            return torch.ops.qat.fake_quantize(x, self.name)
        if torch.compiler.is_compiling():
            return self._forward_on_tensors(x)
        observe = self._observes and self.training and not _in_backward()
        if not (observe or self._quantizes):
            return x
        values = x.float()
        if observe:
            self._observe(values.detach())
        if not self._quantizes or x.numel() == 0:
            return x
        if not self._ready(values.detach()):
            return x
        rounded = self._fake_quantize(values)
        if self.measure:
            self.measure_rounding(values.detach(), rounded.detach())
        if self.trail is not None:
            self.trail.append(rounded.detach())
        return rounded.to(x.dtype)

    def _forward_on_tensors(self, x: Tensor) -> Tensor:
        """The forward pass with every decision in a tensor."""
        values = x.float()
        grid = Grid(self.quant_min, self.quant_max, self.midrise, self.spec.symmetric, self.spec.signed)
        if self.training:
            self._observe_on_tensors(values.detach(), grid)
        rounded, ready = self._fake_quantize_on_tensors(values, grid)
        return torch.where(self.fake_quantize_enabled & ready, rounded, values).to(x.dtype)

    def _on_grid(self, function, x: Tensor, scale: Tensor, zero_point: Tensor, *arguments) -> Tensor:
        """`function(x, scale, zero_point, *arguments)` with scale and zero point shaped to broadcast against `x`."""
        if self.spec.group_size is None or self.axis is None:
            scale = functional.along_axis(scale, x.ndim, self.axis)
            return function(x, scale, functional.along_axis(zero_point, x.ndim, self.axis), *arguments)
        grouped = functional.rows(x, self.axis, self.spec.group_size)
        rounded = function(grouped, scale.unsqueeze(-1), zero_point.unsqueeze(-1), *arguments)
        return functional.from_rows(rounded, x.shape, self.axis)

    def _exactly(self, values: Tensor) -> Tensor:
        """Fake-quantized as the exported integers compute it."""
        scale, zero_point = self._qparams_in_force()
        grid = self._grid
        return self._on_grid(
            functional.fake_quantize, values, scale, zero_point, grid.quant_min, grid.quant_max, grid.midrise
        )

    def measure_rounding(self, values: Tensor, rounded: Tensor) -> None:
        """Keep in `measured` the signal to quantization noise of `rounded` in dB, and the share of `values` clipped."""
        scale, zero_point = self._qparams_in_force()
        grid = self._grid
        if self.spec.group_size is None:
            scale, zero_point = (functional.along_axis(v, values.ndim, self.axis) for v in (scale, zero_point))
        else:
            values, rounded = (functional.rows(v, self.axis, self.spec.group_size) for v in (values, rounded))
            scale, zero_point = scale.unsqueeze(-1), zero_point.unsqueeze(-1)
        share = functional.clip_share(values, scale, zero_point, grid.quant_min, grid.quant_max, grid.midrise)
        self.measured = (functional.signal_to_quantization_noise(values, rounded), share)
        self.measure = False

    # --- tensors and their Python copies ------------------------------------------------------------------------------

    def _set_grid(self, grid: QuantSpec) -> None:
        self._grid = grid
        self.width.fill_(grid.bits)
        self.quant_min.fill_(grid.quant_min)
        self.quant_max.fill_(grid.quant_max)
        self.midrise.fill_(grid.midrise)

    def _mark_initialized(self) -> None:
        if not self._initialized:
            self.initialized.fill_(True)
            self._initialized = True

    def _refresh_mirrors(self) -> None:
        self._grid = self.spec.with_bits(int(self.width))
        self._observes = bool(self.observer_enabled)
        self._quantizes = bool(self.fake_quantize_enabled)
        self._frozen = bool(self.scales_frozen)
        self._initialized = bool(self.initialized)

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        width = state_dict.get(f"{prefix}width")
        if width is not None and (int(width) not in WIDTHS or int(width) < self.spec.bits):
            raise CheckpointError(
                f"the checkpoint holds {self.name} at {int(width)} bits, below the {self.spec.bits} bits configured; "
                "load it with the config it was trained with."
            )
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        self._refresh_mirrors()

    def _apply(self, fn, recurse=True):
        """Moves with the network, but stays in float32 when the network is cast: codes must not depend on that."""

        def keep_type(tensor: Tensor) -> Tensor:
            applied = fn(tensor)
            return applied if applied.dtype == tensor.dtype else tensor.to(applied.device)

        return super()._apply(keep_type, recurse)

    def extra_repr(self) -> str:
        """One line for `print`."""
        return f"{self.name}, {self.role}, {self.bits} bits, scale {self.scale_shape}"


def _in_backward() -> bool:
    """Whether a backward pass recomputes this forward (activation checkpointing); nothing is observed then."""
    return torch._C._current_graph_task_id() != -1
