"""qat-check: what a recipe is going to do, printed before any training.

qat-check -cn digits_cnn quant.weight.bits=3
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pytorch_lightning
from hydra import compose, initialize_config_module
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

import qat
from qat.cli import parts
from qat.cli.mistakes import sentence_of
from qat.cli.search_path import search_package_parts
from qat.emitters import emitter_of
from qat.errors import ConfigurationError, PreparationError, QATError
from qat.schedule import Progress
from qat.training.discovery import find_network, inputs_of
from qat.training.preflight import preflight
from qat.training.progress import known_total
from qat.training.slowdown import expected_slowdown


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code: 0, or 1 with one sentence on stderr."""
    parser = argparse.ArgumentParser(prog="qat-check", description="Print what a recipe is going to do.")
    parser.add_argument("-cn", "--config-name", default="digits_cnn", help="recipe (default: %(default)s)")
    parser.add_argument("-cd", "--config-dir", type=Path, help="folder with recipes of your own")
    parser.add_argument("overrides", nargs="*", help="as for qat-train, for example quant.weight.bits=3")
    options = parser.parse_args(arguments)
    try:
        text, refusal = check(compose_recipe(options.config_name, options.overrides, options.config_dir))
        print(text)
        if refusal is not None:
            raise refusal
    except QATError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def compose_recipe(name: str, overrides: Sequence[str] = (), config_dir: Path | None = None) -> DictConfig:
    """The config of a recipe, as `qat-train` composes it.

    config_dir: searched for the recipe besides the package's own. Raises `ConfigurationError` for an unknown recipe or
    override.
    """
    if config_dir is not None and not config_dir.is_dir():
        raise ConfigurationError(f"the folder {str(config_dir)!r} does not exist; give one that holds {name}.yaml.")
    search_package_parts(config_dir)
    try:
        with initialize_config_module("qat.recipes", job_name="qat-check", version_base="1.3"):
            return compose(name, overrides=list(overrides))
    # Hydra raises a plain ValueError for some overrides, such as `logger=null`.
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise ConfigurationError(sentence_of(error)) from error


def check(config: DictConfig) -> tuple[str, PreparationError | None]:
    """(preflight of a composed recipe, from its first training batch; why its runtime refuses the network, if it does).

    Nothing is trained and nothing written. Of a network that is refused the preflight shows what a simulation would do.
    """
    parts.check_complete(config)
    config = parts.settled(config)
    runtimes = parts.runtimes_of(config)
    for runtime in runtimes:
        emitter_of(runtime)  # what is not installed shows before the training
    pytorch_lightning.seed_everything(config.seed, verbose=False)
    data, model = parts.data_of(config), parts.model_of(config)
    data.setup("fit")
    loader = data.train_dataloader()
    network = find_network(model, None)
    quant, schedule = parts.quant_of(config), parts.schedule_of(config)
    inputs, refusal = inputs_of(next(iter(loader)), network), None
    try:
        handle = qat.prepare(network, inputs, quant, runtimes)
    except PreparationError as error:
        handle, refusal = qat.prepare(network, inputs, quant, None), error
    epochs, steps = known_total(config.trainer.max_epochs), known_total(config.trainer.get("max_steps"))
    if steps is None and epochs is not None:
        steps = epochs * len(loader)
    text = preflight(handle, schedule, Progress(total_epochs=epochs, total_steps=steps))
    if schedule is None:
        return (
            f"{text}quantized after training, from {config.post_training.batches} batches of training data\n",
            refusal,
        )
    schedule.check_reaches(quant.weight.bits, quant.activation.bits)
    return f"{text}{expected_slowdown(handle, inputs)}\n", refusal


if __name__ == "__main__":
    sys.exit(main())
