"""One run of a recipe: train, export, verify on the test split, report."""

import contextlib
import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytorch_lightning
import torch
from omegaconf import DictConfig
from rich.console import Console
from torch import nn

import qat
from qat.batches import split_batch, with_pictures
from qat.cli import parts
from qat.cli.companions import deliver_companions, write_files
from qat.emitters import emitter_of, export_all, exported_in, remove_exported
from qat.errors import ConfigurationError, MissingExtraError
from qat.inject.handle import Handle
from qat.inject.undisturbed import undisturbed
from qat.integer.image_input import with_image_input
from qat.integer.program import IntegerProgram
from qat.models.checkpoint import check_resumable
from qat.post_training import calibrate
from qat.report.files import INTEGER, PREDICTIONS_PNG, write_or_remove
from qat.report.records import TAKEN_OUT
from qat.report.run import read
from qat.report.tables import certificate_line, run_table
from qat.training.delivery import certify, refuse_unequal, write_page, write_report
from qat.training.discovery import find_network, inputs_of
from qat.verification import verify_files

#: The split that is held out of training and of every choice made while training.
SPLIT = "test"


@dataclass(frozen=True)
class Trained:
    """What training leaves.

    handle: of the prepared network, in eval mode. float_network: what the float metrics are measured on, and
    float_weights says what that is. epochs: completed.
    """

    program: IntegerProgram
    handle: Handle
    float_network: Callable
    float_weights: str
    epochs: int


def run_recipe(config: DictConfig, run_dir: Path, recipe: str) -> None:
    """Run a composed recipe. Leaves in `run_dir` checkpoints, logs, plots and `integer/` with the verified file.

    recipe: its name, for the report. Raises `QATError` for what the user can mend.
    """
    parts.check_complete(config)
    config = parts.settled(config)
    parts.keep(config, run_dir)
    runtimes = parts.runtimes_of(config)
    for runtime in runtimes:
        emitter_of(runtime)  # what is not installed shows before the training
    if config.get("threads") is not None:
        torch.set_num_threads(config.threads)
    pytorch_lightning.seed_everything(config.seed, workers=True, verbose=False)
    data, model = parts.data_of(config), parts.model_of(config)
    parts.image_input_of(config, data)
    if config.get("resume") is not None:
        check_resumable(model, config.resume)
    train = _train_quantized if config.get("post_training") is None else _train_then_quantize
    trained = train(config, run_dir, data, model)
    companions = getattr(model, "companions", dict)()
    if isinstance(trained.program, IntegerProgram):  # what companions hand from run to run is codes
        deliver_companions(trained.handle.module, companions, run_dir, runtimes, parts.nonlinear_of(config))
    write_files(getattr(data, "files", dict)(), run_dir)
    trained.handle.measure()
    files = exported_in(run_dir / INTEGER)
    report = verify_split(trained.program, files, data, model, trained.handle.module, trained.float_network)
    _draw_predictions(trained.program, run_dir, data, model)
    write_report(
        run_dir / INTEGER,
        report,
        trained.program,
        trained.handle,
        recipe=recipe,
        seed=config.seed,
        epochs=trained.epochs,
        split=SPLIT,
        conditions={**report.conditions, **_grids(trained.handle.config), "float_metrics": trained.float_weights},
    )
    certify(trained.program, run_dir / INTEGER, files, report, SPLIT)
    _report(run_dir, files)
    refuse_unequal(report, files)


def _grids(quant: "qat.QuantConfig") -> dict[str, str]:
    """What the activations' grids are, which a recipe may leave to its target."""
    return {"activation_grids": quant.activation.kind} if quant.is_integer else {}


def verify_split(
    program: IntegerProgram,
    files: Mapping[str, Path],
    data: pytorch_lightning.LightningDataModule,
    model: pytorch_lightning.LightningModule,
    network: nn.Module | None = None,
    float_network: Callable | None = None,
    repeats: int = 30,
) -> "qat.VerificationReport":
    """Run exported files beside the program, and beside the networks given, on the whole test split.

    files: by runtime. The metrics are those that `model.test_metrics()` names, none where the model has no such method.
    """
    data.setup(SPLIT)
    make_metrics = getattr(model, "test_metrics", dict)
    return verify_files(
        program,
        files,
        data.test_dataloader(),
        module=network,
        metrics=make_metrics(),
        float_module=float_network,
        repeats=repeats,
    )


def _train_quantized(config: DictConfig, run_dir: Path, data, model) -> Trained:
    """Quantization-aware training."""
    # Weights that were trained in float are the network to compare with; otherwise there never is a finished one.
    starts_trained = config.model.get("checkpoint") is not None
    before = copy.deepcopy(find_network(model, None)).eval() if starts_trained else None
    callback = parts.callback_of(config, run_dir / INTEGER, parts.image_input_of(config, data))
    trainer = parts.trainer_of(config, run_dir, [callback])
    trainer.fit(model, datamodule=data, ckpt_path=config.get("resume"))
    if callback.handle is None:
        raise ConfigurationError(
            f"the run that resume= goes on with had reached trainer.max_epochs={config.trainer.max_epochs} already, so "
            "nothing was trained; raise it, or use the integer/ folder of that run."
        )
    if callback.program is None:
        raise ConfigurationError(
            f"the run ended in epoch {trainer.current_epoch}, before quantization was final, so nothing was exported; "
            "let it run longer, or resume it with resume= and its last checkpoint."
        )
    callback.handle.module.eval()
    return Trained(
        program=callback.program,
        handle=callback.handle,
        float_network=before or callback.handle.original_forward,
        float_weights="the checkpoint, before training" if starts_trained else TAKEN_OUT,
        epochs=trainer.current_epoch,
    )


def _train_then_quantize(config: DictConfig, run_dir: Path, data, model) -> Trained:
    """Training in float, then quantization from batches of training data."""
    if config.trainer.max_epochs != 0:
        _refuse_before_training(config, data, model)
    trainer = parts.trainer_of(config, run_dir, [])
    trainer.fit(model, datamodule=data, ckpt_path=config.get("resume"))
    network = find_network(model, None).eval()
    float_network = copy.deepcopy(network)
    options = parts.post_training_of(config)
    handle = calibrate(
        network, data.train_dataloader(), parts.quant_of(config), parts.runtimes_of(config), options=options
    )
    program = qat.convert(network)
    image_input = parts.image_input_of(config, data)
    if image_input is not None:
        program = with_image_input(program, image_input)
    program.save(run_dir / INTEGER)
    remove_exported(run_dir / INTEGER)
    export_all(program, run_dir / INTEGER, parts.runtimes_of(config), nonlinear=parts.nonlinear_of(config))
    return Trained(
        program=program,
        handle=handle,
        float_network=float_network,
        float_weights="trained, before quantization",
        epochs=trainer.current_epoch,
    )


def _refuse_before_training(config: DictConfig, data, model) -> None:
    """Prepare a copy of the network, from one batch, to tell what its runtimes cannot run before it is trained."""
    network = find_network(model, None)
    with undisturbed(network):
        data.prepare_data()
        data.setup("fit")
        inputs = inputs_of(next(iter(data.train_dataloader())), network)
        qat.prepare(copy.deepcopy(network), inputs, parts.quant_of(config), parts.runtimes_of(config)).remove()


def _draw_predictions(program: IntegerProgram, run_dir: Path, data, model) -> None:
    """Draw what the program says of the first test batch, where the model has `draw_predictions`, for the report."""
    picture = None
    if hasattr(model, "draw_predictions"):
        inputs, targets = split_batch(program, next(iter(data.test_dataloader())))
        with contextlib.suppress(MissingExtraError):  # the report that follows says what is not installed
            picture = model.draw_predictions(inputs, program(with_pictures(program, inputs)), targets)
    write_or_remove(run_dir / PREDICTIONS_PNG, picture)


def _report(run_dir: Path, files: Mapping[str, Path]) -> None:
    """Write report.html and the pictures, and print the table that heads them. files: by runtime."""
    console = Console()
    page = write_page(run_dir / INTEGER)
    if page is not None:
        console.print(f"report: {page}", soft_wrap=True, markup=False)
    run = read(run_dir).run
    console.print(run_table(run))
    console.print(certificate_line(run))
    for path in files.values():
        console.print(f"{run.file_label} file: {path}", soft_wrap=True, markup=False)
