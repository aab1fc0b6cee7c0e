"""A prepared network in every loop of a trainer: recorded, restored with its checkpoints, and watched for detours."""

import warnings

import pytorch_lightning
import torch
from torch import Tensor, nn

from qat.inject.handle import Handle, handle_of
from qat.preparation import prepare
from qat.schedule import QuantState
from qat.spec import QuantConfig
from qat.targets import TargetName
from qat.training.checkpoint_state import packed, refuse_other_module, state_in, unpack
from qat.training.detours import DetourWatch
from qat.training.discovery import copied, find_network, inputs_of
from qat.training.history import History
from qat.training.lightning_parts import hook_before_restore
from qat.training.scale_optimizer import ScaleOptimizer


class PreparedInLoops(pytorch_lightning.Callback):
    """What validation, test and prediction need of quantization; training builds upon it.

    config, target: what `qat.prepare` takes. module, example_inputs: the network and its inputs, None to find them. The
    network is prepared as soon as its inputs are known: in training, or where a checkpoint brings its quantizers.
    """

    def __init__(self, config: QuantConfig, target: TargetName, module: str | nn.Module | None, example_inputs):
        self.config = config
        self.target = target
        self.module = module
        self.example_inputs = example_inputs
        self.handle: Handle | None = None
        self.history = History()
        self._optimizer: ScaleOptimizer | None = None
        self._restored: dict | None = None
        self._starts_float = False  # whether what was restored last was trained in float
        self._advised = False
        self._detours: DetourWatch | None = None
        self._undo: list = []

    @property
    def state_key(self) -> str:
        """Where checkpoints keep the state: one place for each network that is named."""
        return self._generate_state_key(module=self.module) if isinstance(self.module, str) else super().state_key

    # --- setting up -------------------------------------------------------------------------------------------------

    def setup(self, trainer, pl_module, stage: str) -> None:
        """Before anything is restored: see what is, for Lightning restores callbacks only when fitting."""
        self.teardown(trainer, pl_module, stage)  # what a run that failed has left behind
        if self.handle is not None and not (self._is_prepared and _is_part(self.handle.module, pl_module)):
            self._forget()
        self._starts_float = False
        restore = hook_before_restore(pl_module, lambda checkpoint: self._before_restore(trainer, checkpoint))
        self._undo.append(restore)

    def teardown(self, trainer, pl_module, stage: str) -> None:
        """Leave trainer and module as they were; the network stays prepared."""
        if self._detours is not None:
            self._detours.stop()
        self._detours = None
        while self._undo:
            self._undo.pop()()

    def on_exception(self, trainer, pl_module, exception: BaseException) -> None:
        """A run that fails has no teardown of its own."""
        self.teardown(trainer, pl_module, "fit")

    def _known_examples(self, pl_module):
        """The inputs that are known without a batch, on the module's device; None where there are none."""
        examples = self.example_inputs
        if examples is None:
            examples = getattr(pl_module, "example_input_array", None)
        return torch.utils._pytree.tree_map(_to(pl_module.device), examples)

    def _prepare(self, pl_module, examples, state: QuantState) -> None:
        """Prepare the network in `state`, and put into force what was restored of it."""
        network = find_network(pl_module, self.module)
        with torch.inference_mode(False):
            self.handle = prepare(network, copied(examples), self.config, self.target)
            self.handle.set_state(state)
            levels = {
                f"{name}.zero_point": float(2**quantizer.spec.bits)
                for name, quantizer in self.handle.quantizers.items()
            }
            named = ((name, parameter, levels.get(name)) for name, parameter in self.handle.named_parameters())
            self._optimizer = ScaleOptimizer(named)
            if self._restored is not None:
                self.history, self._advised = unpack(self._restored, self.handle, self._optimizer)
                self._restored = None

    # --- every loop but training -------------------------------------------------------------------------------------

    def on_validation_start(self, trainer, pl_module) -> None:
        """Look for layers that run outside the network's forward."""
        if not trainer.sanity_checking:
            self._watch_detours()

    def on_validation_end(self, trainer, pl_module) -> None:
        """Tell those that were found."""
        self._warn_of_detours(pl_module, "validation_step")

    def _watch_detours(self) -> None:
        """Look for them while values are rounded; compiled code is left alone, which hooks would compile anew."""
        if self._is_prepared and self.handle.state.fake_quantize and self.handle.runs:
            self._detours = DetourWatch(self.handle)

    def _warn_of_detours(self, pl_module, step: str) -> None:
        found = [] if self._detours is None else self._detours.stop()
        self._detours = None
        if found:
            network = type(self.handle.module).__name__
            warnings.warn(
                f"{type(pl_module).__name__}.{step} calls {', '.join(found[:3])} outside of {network}.forward, where "
                f"nothing is quantized; call {network} itself, or name the part that is called with "
                "QATCallback(module=...).",
                stacklevel=2,
            )

    def on_test_start(self, trainer, pl_module) -> None:
        """Look for the same in testing."""
        self._watch_detours()

    def on_test_end(self, trainer, pl_module) -> None:
        """And tell it."""
        self._warn_of_detours(pl_module, "test_step")

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0) -> None:
        """A checkpoint validated without a fit before it needs its quantizers."""
        self._prepare_restored(trainer, pl_module, batch)

    def on_test_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0) -> None:
        """The same for testing."""
        self._prepare_restored(trainer, pl_module, batch)

    def on_predict_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0) -> None:
        """And for predicting."""
        self._prepare_restored(trainer, pl_module, batch)

    def _prepare_restored(self, trainer, pl_module, batch) -> None:
        if self._restored is not None and not self._is_prepared and not trainer.sanity_checking:
            examples = self._known_examples(pl_module)
            if examples is None:
                examples = inputs_of(batch, find_network(pl_module, self.module))
            self._prepare(pl_module, examples, QuantState())

    # --- checkpoints ------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict:
        """All of quantization that a checkpoint keeps, see `qat.training.checkpoint_state`."""
        if self.handle is None:
            return {} if self._restored is None else self._restored
        return packed(self.handle, self._optimizer, self.history, self._advised)

    def load_state_dict(self, state_dict: dict) -> None:
        """Keep a restored state until the network is prepared; of a prepared one it was taken over with the weights."""
        if self.handle is None:
            self._restored = state_dict or None

    def _before_restore(self, trainer, checkpoint: dict) -> None:
        """Refuse a checkpoint of another module, and take its quantizers over.

        Lightning restores callbacks only when fitting; a checkpoint that is tested needs its quantizers as well.
        """
        module = trainer.lightning_module
        if module.strict_loading and "state_dict" in checkpoint:
            refuse_other_module(module, checkpoint["state_dict"], f"the checkpoint {str(trainer.ckpt_path)!r}")
        alone = sum(isinstance(callback, PreparedInLoops) for callback in trainer.callbacks) == 1
        state = state_in(checkpoint, self.state_key, alone)
        self._starts_float = state is None
        if state is None:
            if self._is_prepared and trainer.state.fn != "fit":
                warnings.warn(
                    "the checkpoint holds no quantizers, and those of the network stay as they are though they belong "
                    "to other weights; call handle.remove() before to run it in float.",
                    stacklevel=2,
                )
        elif self.handle is None:
            self._restored = state
        else:
            self.history, self._advised = unpack(state, self.handle, self._optimizer)

    # --- state ------------------------------------------------------------------------------------------------------

    @property
    def _is_prepared(self) -> bool:
        """Whether the network is prepared still: its handle may have been removed since."""
        return self.handle is not None and handle_of(self.handle.module) is self.handle

    def _forget(self) -> None:
        """Begin anew, with another network or with one that was given back its float forward."""
        self.handle = self._optimizer = self._restored = None
        self.history = History()
        self._advised = False


def _to(device):
    return lambda leaf: leaf.to(device) if isinstance(leaf, Tensor) else leaf


def _is_part(network: nn.Module, pl_module: nn.Module) -> bool:
    return any(part is network for part in pl_module.modules())
