"""`QATCallback`: a schedule's decisions put into Lightning's hooks, from the first batch to the exported file.

Only thin hooks live here. What to do when is `Schedule.state_at`, how it is done is the `Handle`, what they are made of
is `qat.training`.
"""

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from qat.emitters import check_nonlinear, emitter_of
from qat.errors import ConfigurationError
from qat.integer.images import ImageScaling
from qat.schedule import QuantState, Schedule
from qat.spec import QuantConfig
from qat.targets import TargetName, config_for, target_named
from qat.training.delivery import deliver
from qat.training.discovery import find_network, held_out, inputs_of, is_warming_up, learning_rate, trains
from qat.training.divergence import diverged
from qat.training.lightning_parts import (
    final_checkpoints_only,
    forget_best,
    keep_unfinished,
    shown_in_progress_bar,
    writes_early_checkpoints,
)
from qat.training.preflight import check_picture, learning_rate_advice, preflight, quantization_steps, quantized_weights
from qat.training.prepared_in_loops import PreparedInLoops
from qat.training.progress import is_last_batch, progress_of
from qat.training.saturation import saturated
from qat.training.synchronize import average_across_ranks, synchronize_ranges

#: Raw pictures are a table ahead of the first layer, between codes.
_NO_PICTURES = "raw pictures need an integer input, but activations are {!r}; use activations='static', or real inputs."

_NO_EARLY_CHECKPOINT = (
    "note: every checkpoint of this run is chosen by a monitor, so none is written before quantization is final; "
    "add save_last=True to be able to resume a run that is killed before."
)


class QATCallback(PreparedInLoops):
    """Quantization-aware training of the network in any LightningModule, ending in a verified integer file.

    quant: a preset such as "w4a8", or a `QuantConfig`. schedule: when what happens; by default float for the first
    tenth of the run, observers frozen at half of it, batch norm at 0.6. target: the runtime to export for, or several,
    whose grids `quant` gets where it leaves them open; None to simulate only. module: the network or its path, where it
    cannot be told. example_inputs: inputs to record the network with, by default `example_input_array` or the first
    batch. export_dir: folder for model.onnx, program.json, program.safetensors, report.json, report.html and `plots/`;
    by default `integer/` in the run's directory, with `plots/` beside it. nonlinear: how softmax, normalization and
    division are exported: "integer", or "float_island", which may be faster but is not integer; see `qat.export`.
    image_input: where the exported files are to take raw uint8 pictures, how their bytes become what the network takes;
    see `IntegerProgram.with_image_input`.

    Works with the trainers of `pytorch_lightning` and of `lightning.pytorch`. A checkpoint keeps the module's own keys;
    the quantizers' state lies beside it in this callback's state. After `fit` the module stays prepared, `program` is
    the exported program, `report` its verification, and `handle.remove()` gives the float module back. Several networks
    of one module take a callback each, with its module= as a path and its export_dir=.
    """

    def __init__(
        self,
        quant: str | QuantConfig = "w8a8",
        schedule: Schedule | None = None,
        target: TargetName = "onnxruntime",
        module: str | nn.Module | None = None,
        example_inputs=None,
        export_dir: str | Path | None = None,
        nonlinear: str = "integer",
        image_input: ImageScaling | None = None,
    ):
        super().__init__(config_for(quant, target), target, module, example_inputs)
        if schedule is not None and not isinstance(schedule, Schedule):
            raise ConfigurationError(f"schedule is {schedule!r}; pass a qat.Schedule.")
        self.schedule = schedule or Schedule()
        if self.config.weight is None:
            raise ConfigurationError(
                f"{self.config.name} gives nothing a grid, so there is nothing to train for; train without the "
                "callback, and call qat.quantize(module, batches, quant='fp16') afterwards."
            )
        if image_input is not None and not self.config.is_integer:
            raise ConfigurationError(_NO_PICTURES.format(self.config.activations))
        self.schedule.check_reaches(self.config.weight.bits, self.config.activation.bits)
        named = target_named(target)
        if named is not None:
            named.check(self.config)
        check_nonlinear(nonlinear, named.runtimes if named is not None else ())
        self.nonlinear, self.image_input = nonlinear, image_input
        self.export_dir = None if export_dir is None else Path(export_dir)
        self.program = None
        self.report = None
        self._label = "qat"
        self._runs_before = 0
        self._watched = False
        self._metrics_before: dict[str, Tensor] = {}
        self._rate_before: float | None = None
        self._rate_to_judge: float | None = None
        self._weights_before: dict[str, Tensor] = {}

    # --- setting up -------------------------------------------------------------------------------------------------

    def setup(self, trainer, pl_module, stage: str) -> None:
        """Keep early checkpoints from being called best, and show the phase in the progress bar."""
        super().setup(trainer, pl_module, stage)
        if stage != "fit":
            return
        if self.target is not None:
            for runtime in target_named(self.target).runtimes:
                emitter_of(runtime)  # what is not installed shows before the training
        self._watched, self._rate_before = False, None
        others = [other for other in trainer.callbacks if isinstance(other, QATCallback) and other is not self]
        self._label = f"qat/{self.module}" if others and isinstance(self.module, str) else "qat"
        exporting = [other._directory(trainer) for other in others if other.target is not None]
        if self.target is not None and self._directory(trainer) in exporting:
            raise ConfigurationError(
                f"two QATCallbacks would export to {self._directory(trainer)}; give each its own export_dir=."
            )
        self._undo.append(final_checkpoints_only(trainer, lambda: self._is_final))
        self._undo.append(shown_in_progress_bar(trainer, self._label, self._one_word))

    def on_fit_start(self, trainer, pl_module) -> None:
        """Prepare at once where the inputs are known without a batch; check the schedule against the run's length."""
        find_network(pl_module, self.module)  # what is wrong with module= shows before the first batch
        self.program = self.report = None
        for sentence in self.schedule.check_against(progress_of(trainer)):
            if not trainer.fast_dev_run:  # a few batches to see whether the code runs
                warnings.warn(sentence, stacklevel=2)
        examples = self._known_examples(pl_module)
        if examples is not None and not self._is_prepared:
            self._prepare_for_training(trainer, pl_module, examples)

    def _prepare_for_training(self, trainer, pl_module, examples) -> None:
        self._prepare(pl_module, examples, self._state(trainer))
        if self.image_input is not None:
            check_picture(self.handle, self.image_input)
        if trainer.is_global_zero:
            print(preflight(self.handle, self.schedule, progress_of(trainer)))
            if not writes_early_checkpoints(trainer):
                print(_NO_EARLY_CHECKPOINT)

    # --- every batch ------------------------------------------------------------------------------------------------

    def on_train_start(self, trainer, pl_module) -> None:
        """The best checkpoints of a run in float are not those of this one."""
        if self._starts_float:
            forget_best(trainer)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx: int) -> None:
        """Put the schedule's state into force; record the network at the first batch."""
        if not self._is_prepared:
            inputs = inputs_of(batch, find_network(pl_module, self.module))
            self._prepare_for_training(trainer, pl_module, inputs)
        self.handle.set_state(self._state(trainer, batch_idx))
        if self._starts_float:
            self._check_ranges_can_be_observed(trainer)
        self._runs_before = self.handle.runs
        if not self._watched and self.handle.state.fake_quantize and self.handle.runs:
            self._watched = True
            self._watch_detours()
        if self.handle.state.fake_quantize and is_last_batch(trainer, batch_idx):
            for quantizer in self.handle.quantizers.values():
                quantizer.measure = True

    def on_before_zero_grad(self, trainer, pl_module, optimizer) -> None:
        """Gradients of a batch whose update was skipped go with those of the weights."""
        if self._learns and trains(optimizer, self.handle.module):
            self._optimizer.zero_grad()

    def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
        """Remember the weights where the learning rate is to be judged; step the learned scales with the optimizer."""
        if self.handle is None or not (self._learns or self._is_advice_due):
            return
        trains_network = trains(optimizer, self.handle.module)
        if trains_network and self._is_advice_due:
            self._advise()  # of the update before, where a batch has several
            self._remember_weights(trainer, optimizer)
        if self._learns:
            self._step_scales(trainer, optimizer, trains_network)

    def _step_scales(self, trainer, optimizer, trains_network: bool) -> None:
        """Step the scales with the optimizer that trains the network.

        What another optimizer's loss left in them (a generator's, that flows through its discriminator) is dropped, as
        it is for the weights.
        """
        if not trains_network:
            self._optimizer.zero_grad()
        elif not self.handle.state.freeze_scales:
            if trainer.world_size > 1:
                self._optimizer.reduce(average_across_ranks)
            scaler = getattr(trainer.precision_plugin, "scaler", None)
            self._optimizer.step(learning_rate(optimizer), scaler.get_scale() if scaler is not None else 1.0)

    def _remember_weights(self, trainer, optimizer) -> None:
        """Copy the weights until their update is made, where there is a rate to judge: none of a warm-up."""
        rate = learning_rate(optimizer)
        if rate is None or not trainer.is_global_zero:
            self._advised = True
        elif is_warming_up(optimizer, rate, self._rate_before):
            self._rate_before = rate
        elif rate and not self._advised:
            self._rate_to_judge = rate
            weights = quantized_weights(self.handle).items()
            self._weights_before = {layer: weight.detach().clone() for layer, weight in weights if weight.requires_grad}

    def _advise(self) -> None:
        """Judge the learning rate by the update it made of the weights that were remembered, once in a run."""
        if self._rate_to_judge is None:
            return
        weights, steps = quantized_weights(self.handle), quantization_steps(self.handle)
        advice = learning_rate_advice(self._weights_before, weights, steps, self._rate_to_judge)
        self._forget_weights()
        if advice is not None:
            self._advised = True
            print(advice)

    def _forget_weights(self) -> None:
        self._rate_to_judge, self._weights_before = None, {}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx: int) -> None:
        """Refuse a training step that went around the network; judge its update; agree on ranges across ranks."""
        if self.handle.is_on and self.handle.runs == self._runs_before:
            parameters = self.handle.module.parameters()
            if self._never_ran and any(parameter.grad is not None for parameter in parameters):
                raise self._went_around(pl_module)
        self._advise()
        self._warn_of_detours(pl_module, "training_step")
        if trainer.world_size > 1 and self.handle.state.observe:
            synchronize_ranges(self.handle)

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        """Write the epoch into the history and the trainer's loggers."""
        if self.handle is None:
            return
        if self.handle.is_on and self._never_ran:
            raise self._went_around(pl_module)
        self.handle.check_observed()
        epoch = self.history.add(trainer, self.handle, label=self._label)
        for logger in trainer.loggers:
            logger.log_metrics(epoch, step=trainer.global_step)

    def on_validation_start(self, trainer, pl_module) -> None:
        """Remember which metrics were there before."""
        super().on_validation_start(trainer, pl_module)
        self._metrics_before = dict(trainer.callback_metrics)

    def on_validation_end(self, trainer, pl_module) -> None:
        """Write the epoch already here: a run resumed from a checkpoint behind validation begins with the next epoch.

        The metrics of training are those of the epoch before still, and come when it ends.
        """
        super().on_validation_end(trainer, pl_module)
        training_done = trainer.state.fn == "fit" and trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        if training_done and self._is_prepared and not trainer.sanity_checking:
            before, now = self._metrics_before, trainer.callback_metrics
            metrics = {name: now[name] for name in now if now[name] is not before.get(name)}
            self.history.add(trainer, self.handle, metrics)

    def _check_ranges_can_be_observed(self, trainer) -> None:
        """Refuse to go on from a float checkpoint behind the point where observers are frozen."""
        self._starts_float = False
        state = self.handle.state
        if state.fake_quantize and not state.observe and not self._has_ranges:
            raise ConfigurationError(
                f"the checkpoint was trained in float to epoch {trainer.current_epoch}, where the schedule has frozen "
                "the observers already, so no range would ever be observed; give a schedule that observes from here "
                "on, or load the checkpoint's weights alone and begin a new run."
            )

    @property
    def _never_ran(self) -> bool:
        """Whether the network was not quantized once, neither in eager nor in compiled code."""
        return self.handle.runs == 0 and not self.handle.has_run

    def _went_around(self, pl_module) -> ConfigurationError:
        return ConfigurationError(
            f"{type(pl_module).__name__}.training_step never called {type(self.handle.module).__name__}.forward, so "
            "nothing was quantized; call the module itself in training_step, or name the network that is called with "
            "QATCallback(module=...)."
        )

    # --- the end ----------------------------------------------------------------------------------------------------

    def teardown(self, trainer, pl_module, stage: str) -> None:
        """Keep no copy of the weights of a batch that failed."""
        super().teardown(trainer, pl_module, stage)
        self._forget_weights()

    def on_train_end(self, trainer, pl_module) -> None:
        """Nothing is exported from a run that was not final; say so, and what the final one clips or made diverge."""
        if self._is_final:
            if trainer.is_global_zero and self.history.entries:
                entries = self.history.entries
                for sentence in (
                    *diverged(self.handle.module, entries),
                    *saturated(self.handle, entries[-1]["layers"]),
                ):
                    print(f"note: {sentence}")
            return
        if self.handle is None:
            phase = "before its first batch"
        elif self.handle.state.final:
            phase = "without a range for any activation"
        else:
            phase = f"in phase {self.handle.state.phase!r}"
        kept = keep_unfinished(trainer)
        remedy = f"resume {kept} (ckpt_path=) with more epochs, or let" if kept else "train for more epochs, or let"
        warnings.warn(
            f"the run ended {phase}, before quantization was final, so nothing is exported; "
            f"{remedy} the schedule end earlier.",
            stacklevel=2,
        )

    def on_fit_end(self, trainer, pl_module) -> None:
        """Save the trained checkpoint, then convert, export, verify and report."""
        if not self._is_final or self.target is None:
            return
        directory = self._directory(trainer)
        trainer.save_checkpoint(directory / "trained.ckpt")
        if trainer.is_global_zero:
            batches = held_out(trainer, self.handle)
            with torch.random.fork_rng(devices=[]):  # making an iterator over a loader draws a number
                self.program, self.report = deliver(
                    self.handle, directory, self.target, batches, self.history, self.nonlinear, self.image_input
                )

    def _directory(self, trainer) -> Path:
        return self.export_dir or Path(trainer.log_dir or trainer.default_root_dir) / "integer"

    # --- state ------------------------------------------------------------------------------------------------------

    @property
    def _is_final(self) -> bool:
        """Whether the network as it is now can be exported. A run too short to observe a batch ends without a range."""
        return self._is_prepared and self.handle.state.final and self._has_ranges

    @property
    def _has_ranges(self) -> bool:
        """Whether activations met data, or there are none; weights bring their ranges with them."""
        activations = [quantizer for quantizer in self.handle.quantizers.values() if quantizer.role == "activation"]
        return not activations or any(quantizer.ready for quantizer in activations)

    @property
    def _learns(self) -> bool:
        """Whether there are learned scales at all."""
        return self._optimizer is not None and bool(self._optimizer.parameters)

    @property
    def _is_advice_due(self) -> bool:
        return not self._advised and self.handle.state.fake_quantize

    def _state(self, trainer, batch_idx: int | None = None) -> QuantState:
        return self.schedule.state_at(progress_of(trainer, batch_idx))

    def _one_word(self) -> str:
        """For the progress bar: the phase and the widths in force."""
        if self.handle is None:
            return "float"
        state = self.handle.state
        weight = max(self.config.weight.bits, state.weight_bits or 0)
        activation = max(self.config.activation.bits, state.activation_bits or 0)
        return f"{state.phase} w{weight}a{activation}" if state.fake_quantize else state.phase
