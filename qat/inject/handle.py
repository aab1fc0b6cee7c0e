"""The handle of a prepared network: it runs the quantized forward, steers the quantizers and removes them."""

import contextlib
import io
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.backends import mha
from torch.overrides import _get_current_function_mode_stack

from qat.errors import AddressError, CheckpointError, QATError
from qat.inject import addresses, exact
from qat.inject.addresses import short_source
from qat.inject.apply import QuantMode, widened
from qat.inject.calls import Recording
from qat.inject.checkpointing import recomputing
from qat.inject.constant_reads import KnownReads, NotedReads
from qat.inject.inputs import (
    check_kinds,
    explain_failure,
    kinds_of,
    map_input,
    positional_names,
)
from qat.inject.plan import Plan, described_islands
from qat.integer.semantics import Semantics, semantics_of
from qat.quantizers import FakeQuantize, make_fake_quantize
from qat.schedule import QuantState
from qat.spec import QuantConfig
from qat.targets import TargetName, target_named
from qat.tracing import is_exporting, is_traced


def handle_of(module: nn.Module) -> "Handle | None":
    """The handle of a prepared module, None for any other."""
    forward = module.__dict__.get("forward")
    owner = getattr(forward, "__self__", None)
    return owner if isinstance(owner, Handle) else None


def forward_of(module: nn.Module) -> Callable:
    """The module's own forward, whether it is prepared or not; its signature tells the names of the inputs."""
    handle = handle_of(module)
    return module.forward if handle is None else handle.original_forward


class Handle:
    """Steers the quantizers of one prepared module.

    module, config, target, plan: what was prepared, and how. quantizers: name -> fake quantizer. `print(handle)` shows
    every quantizer, where it sits, what shares it, and its bits.
    """

    def __init__(
        self, module: nn.Module, config: QuantConfig, target: TargetName, plan: Plan, recording: Recording, examples
    ):
        self.module = module
        self.config = config
        named = target_named(target)
        self.target = None if named is None else named.runtimes[0] if len(named.runtimes) == 1 else named.runtimes
        self.plan = plan
        self.recording = recording
        self.transitions = recording.transitions
        self.sequences = recording.sequences
        self.operations = {address: call.operation.name for address, call in recording.calls.items()}
        self.expected = {training: recording.always_made(training) for training in recording.ways}
        #: address of a computation -> address of the last call fused into it, where its quantizer stands
        self.ends = {
            action.head: address for address, action in sorted(plan.actions.items()) if action.head is not None
        }
        self.tracks_writes = any(call.in_place for call in recording.calls.values())
        self.checkpointed = recording.checkpointed
        #: sites where the eval forward reads numbers of tensors that depend on no input
        self.constant_reads = frozenset(site for site, depends in recording.reads.items() if not depends)
        #: what notes those numbers, or answers with them, while the network is converted
        self.reads: NotedReads | KnownReads | None = None
        self.sources = {call.layer: call.source for call in recording.calls.values()}
        #: shape and dtype of each input as recorded, to make example inputs of any batch size
        self.examples = examples
        self.state = QuantState()
        self._applied: QuantState | None = self.state  # what the quantizers were last told
        self.own_forward = module.__dict__.get("forward")
        self.quantizers: dict[str, FakeQuantize] = {
            name: make_fake_quantize(
                site.spec, name=name, role=site.role, shape=site.shape, axis=site.axis, nonnegative=site.nonnegative
            )
            for name, site in plan.sites.items()
        }
        #: how the runtime rounds that the network is prepared for
        self.semantics: Semantics = semantics_of(self.rounding)
        for quantizer in self.quantizers.values():
            quantizer.narrow_kernel = quantizer.role == "weight" and self.semantics.narrow_weights
        self.input_names = positional_names(self.original_forward)
        self._input_kinds = kinds_of(*examples)
        #: a plain attribute, since compiled code is guarded on every attribute it reads
        self.batch_norm_frozen = False
        self._training = True
        self._observes_in_eval = False
        self._device = torch.device("cpu")
        self._follow_device()
        #: forwards that were quantized so far, in eager code
        self.runs = 0
        #: told of every computation of a forward before it runs: address, function, arguments with weights quantized
        self.watcher: Callable[[int, Callable, tuple, dict], None] | None = None
        #: what `remove` calls besides, such as to give weights back that were adjusted to their grids
        self.on_removal: list[Callable[[], None]] = []
        module.forward = self.forward

    @property
    def purpose(self) -> str:
        """What the network is prepared for, in words."""
        target = target_named(self.target)
        return "simulation only" if target is None else target.name

    @property
    def rounding(self) -> str | None:
        """The runtime with whose rounding the network computes; None for none in particular."""
        target = target_named(self.target)
        return None if target is None else target.runtimes[0]

    # --- running ----------------------------------------------------------------------------------------------------

    def forward(self, *args, **kwargs):
        """The module's forward, quantized. While everything is off it is the module's own, at no cost."""
        if not torch.compiler.is_dynamo_compiling():
            if not self.is_on:
                return self.original_forward(*args, **kwargs)
            self._refuse_inside_of_another()
            self.runs += not is_exporting()
            self._follow_device()
            self._follow_mode()
        for quantizer in self.quantizers.values():
            quantizer.begin()
        args, kwargs = self._quantize_inputs(args, kwargs)
        mode = QuantMode(self)
        if is_traced():
            result = quantized_forward(mode, self, args, kwargs)
        else:
            result = self._run(mode, args, kwargs)
        mode.check_complete()
        for quantizer in self.quantizers.values():
            quantizer.end()
            if not is_traced():
                quantizer.commit()
        return mode.current(result)

    def _refuse_inside_of_another(self) -> None:
        """Raise `AddressError` in the quantized forward of another prepared module, which was prepared first."""
        outer = next((mode for mode in _get_current_function_mode_stack() if isinstance(mode, QuantMode)), None)
        if outer is not None:
            raise AddressError(
                f"{type(self.module).__name__} was prepared inside of {type(outer.handle.module).__name__}, which is "
                "prepared as well, and one of them can quantize it; call remove() on one of the two handles."
            )

    def _run(self, mode: QuantMode, args: tuple, kwargs: dict):
        """The quantized forward in eager code."""
        try:
            with recomputing(mode) if self.checkpointed else contextlib.nullcontext():
                return quantized_forward(mode, self, args, kwargs)
        except QATError:
            raise
        except Exception as error:
            explain_failure(self.original_forward, self.examples, args, kwargs, error)
            raise

    @property
    def has_run(self) -> bool:
        """Whether a quantizer has met data, in eager or in compiled code."""
        return any(
            quantizer.ready or (quantizer.observer is not None and quantizer.observer.has_observed)
            for quantizer in self.quantizers.values()
        )

    @property
    def is_on(self) -> bool:
        """Whether anything is observed or rounded."""
        return self.state.observe or self.state.fake_quantize

    @property
    def original_forward(self) -> Callable:
        """The forward that the module had before."""
        return self.own_forward or type(self.module).forward.__get__(self.module)

    @property
    def folds(self) -> bool:
        """Whether batch norm is folded and biases fake-quantized: once batch norm is frozen, and in eager eval mode.

        Compiled code asks for the frozen batch norm alone, so that it compiles anew at that point and at no other.
        """
        if is_exporting():
            return False  # the exported graph shows batch norm and bias as they are; lowering folds them
        if torch.compiler.is_dynamo_compiling():
            return self.batch_norm_frozen
        return self.state.fake_quantize and (self.batch_norm_frozen or not self.module.training)

    @property
    def widens(self) -> bool:
        """Whether computations on codes leave autocast, whose narrow types cannot hold their results, for float32."""
        on = is_traced() or self.state.fake_quantize
        return torch.is_autocast_enabled(self._device.type) and on

    def _quantize_inputs(self, args: tuple, kwargs: dict):
        if not is_traced() and kinds_of(args, kwargs) != self._input_kinds:
            check_kinds(self.original_forward, self.examples, args, kwargs)
        if self.widens:
            args, kwargs = widened((args, kwargs))
        for path, name in self.plan.inputs.items():
            args, kwargs = map_input(args, kwargs, path, self.input_names, self._input_quantizer(name))
        return args, kwargs

    def _input_quantizer(self, name: str) -> Callable[[Tensor], Tensor]:
        """What quantizes an input; in eval mode as the runtime does."""
        quantizer = self.quantizers[name]
        if is_traced() or not self.semantics.by_reciprocal:
            return quantizer
        if self.module.training or not self.folds or not quantizer.ready:
            return quantizer
        return lambda x: quantizer(exact.by_reciprocal(x, quantizer.scale_in_force())).to(x.dtype)

    @contextlib.contextmanager
    def observing_in_eval(self):
        """Let quantizers observe while the module is in eval mode, inside; for post-training quantization."""
        self._observes_in_eval = True
        try:
            yield
        finally:
            self._observes_in_eval = False

    def _follow_mode(self) -> None:
        training = self.module.training or self._observes_in_eval
        if training != self._training:
            for quantizer in self.quantizers.values():
                quantizer.train(training)
            self._training = training

    def _follow_device(self) -> None:
        """Move the quantizers where the module is; parameters keep their identity, so optimizers still hold them."""
        device = next((parameter.device for parameter in self.module.parameters()), self._device)
        if device != self._device:
            self.to(device)

    def to(self, device) -> "Handle":
        """Move every quantizer to `device`."""
        self._device = torch.device(device)
        for quantizer in self.quantizers.values():
            quantizer.to(device)
        return self

    # --- steering ---------------------------------------------------------------------------------------------------

    def set_state(self, state: QuantState) -> None:
        """Put a schedule's state into force: phases, and widths (the larger of the state's and the config's)."""
        self._follow_device()  # compiled code cannot, and the module may have moved since
        if state == self._applied:
            return
        self.state = self._applied = state
        self.batch_norm_frozen = state.freeze_batch_norm
        with torch.no_grad():
            for name, quantizer in self.quantizers.items():
                # a weight's range is that of the weights as they are, to the end: frozen, it would clip what grows
                observe = state.observe or self.plan.sites[name].role == "weight"
                # first on or off, then the width: one that is off chooses its scale when it is turned on
                quantizer.set_state(observe, state.fake_quantize)
                floor = state.weight_bits if self.plan.sites[name].role == "weight" else state.activation_bits
                bits = max(quantizer.spec.bits, floor or 0)
                if bits != quantizer.bits:
                    quantizer.set_bits(bits, self.weight_of(name))
                if state.fake_quantize and not quantizer.ready:
                    quantizer.start_on(self.weight_of(name))
                quantizer.freeze_scales = state.freeze_scales

    def measure(self) -> None:
        """Let the next forward that rounds leave in each quantizer's `measured` how well its values are represented."""
        for quantizer in self.quantizers.values():
            quantizer.measure = True

    def check_observed(self) -> None:
        """Raise `ObservationError` for NaN or infinity seen on a device, where every look at a batch would wait."""
        for quantizer in self.quantizers.values():
            quantizer.check()

    def weight_of(self, name: str) -> Tensor | None:
        """The parameter or buffer that the quantizer `name` quantizes, None for an activation or a derived constant."""
        if self.plan.sites[name].role != "weight":
            return None
        owner, _, attribute = name.rpartition(".")
        try:
            return getattr(self.module.get_submodule(owner), attribute)
        except AttributeError:
            return None

    def parameters(self) -> Iterator[nn.Parameter]:
        """The learned scales and zero points."""
        for quantizer in self.quantizers.values():
            yield from quantizer.learned_parameters()

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The learned scales and zero points with their names."""
        for name, quantizer in self.quantizers.items():
            for suffix, parameter in quantizer.named_parameters():
                yield f"{name}.{suffix}", parameter

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """The state of every quantizer, by name."""
        return {name: dict(quantizer.state_dict()) for name, quantizer in self.quantizers.items()}

    def load_state_dict(self, state: dict[str, dict[str, Tensor]]) -> None:
        """Take over a state; raises `CheckpointError` where it belongs to another network or another quantization."""
        missing, foreign = sorted(set(self.quantizers) - set(state)), sorted(set(state) - set(self.quantizers))
        if missing or foreign:
            raise CheckpointError(
                f"the checkpoint's quantizers are not this network's: missing {missing[:3] or 'none'}, unknown "
                f"{foreign[:3] or 'none'}; load it into the network and quantization it was made with."
            )
        for name, quantizer in self.quantizers.items():
            own = quantizer.state_dict()
            for key, tensor in own.items():
                if key not in state[name] or state[name][key].shape != tensor.shape:
                    found = tuple(state[name][key].shape) if key in state[name] else "nothing"
                    raise CheckpointError(
                        f"the checkpoint holds {found} for {name}.{key}, this network needs shape "
                        f"{tuple(tensor.shape)}; load it into the network and quantization it was made with."
                    )
        for name, quantizer in self.quantizers.items():
            quantizer.load_state_dict(state[name])
        self._applied = None

    def remove(self) -> None:
        """Give the module its own forward back. Parameters keep the values that training gave them.

        What post-training quantization adjusted (`qat.PostTraining`) is as it was before.
        """
        if handle_of(self.module) is self:
            del self.module.forward
            if self.own_forward is not None:
                self.module.forward = self.own_forward
            while self.on_removal:
                self.on_removal.pop()()
            torch.compiler.reset()

    # --- looking ----------------------------------------------------------------------------------------------------

    def __str__(self) -> str:
        from rich.console import Console
        from rich.table import Table

        table = Table(title=f"{type(self.module).__name__} as {self.config.name} for {self.purpose}")
        for column in ("quantizer", "kind", "bits", "scales", "method", "sits on", "shared with"):
            table.add_column(column, overflow="fold")
        for name, site in self.plan.sites.items():
            quantizer = self.quantizers[name]
            shares = [layer for layer in site.shares if layer != site.layer]
            bits = f"{quantizer.bits}" if quantizer.bits == site.spec.bits else f"{quantizer.bits} -> {site.spec.bits}"
            method = "learned" if site.spec.learned else site.spec.observer_for(site.role)
            sits = short_source(self.sources[site.layer]) if site.layer in self.sources else "input"
            table.add_row(name, site.role, bits, str(quantizer.scale.numel()), method, sits, ", ".join(shares))
        buffer = io.StringIO()
        Console(file=buffer, force_jupyter=False, width=160).print(table)
        if self.plan.islands:
            buffer.write(f"float islands: {described_islands(self.plan.islands)}\n")
        if self.plan.float_layers:
            buffer.write(f"left in float: {', '.join(self.plan.float_layers)}\n")
        return buffer.getvalue()


def quantized_forward(mode: QuantMode, handle: Handle, args: tuple, kwargs: dict):
    """The module's own forward under `mode`; chains of code positions end at this frame.

    Called through its class, since Dynamo cannot follow the making of a bound method in all versions.
    """
    fast_path = mha._is_fastpath_enabled
    try:
        # Compiled, a transformer's layer would run as one call that no quantizer can look into. The function that sets
        # this cannot be compiled.
        mha._is_fastpath_enabled = False
        with mode:
            if handle.own_forward is not None:
                return handle.own_forward(*args, **kwargs)
            return type(handle.module).forward(handle.module, *args, **kwargs)
    finally:
        mha._is_fastpath_enabled = fast_path


addresses.mark_root(quantized_forward.__code__)
