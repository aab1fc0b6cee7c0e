"""qat-check: what a recipe is going to do, printed before any training.

qat-check -cn digits_cnn quant.weight.bits=3
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pytorch_lightning
from hydra import compose, initialize_config_dir, initialize_config_module
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

import qat
from qat.cli import parts
from qat.cli.failure import as_sentence
from qat.errors import ConfigurationError, QATError
from qat.schedule import Progress
from qat.training.discovery import find_network, inputs_of
from qat.training.preflight import preflight


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code: 0, or 1 with one sentence on stderr."""
    parser = argparse.ArgumentParser(prog="qat-check", description="Print what a recipe is going to do.")
    parser.add_argument("-cn", "--config-name", default="digits_cnn", help="recipe (default: %(default)s)")
    parser.add_argument("-cd", "--config-dir", type=Path, help="folder with recipes of your own")
    parser.add_argument("overrides", nargs="*", help="as for qat-train, for example quant.weight.bits=3")
    options = parser.parse_args(arguments)
    try:
        print(check(compose_recipe(options.config_name, options.overrides, options.config_dir)))
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
    try:
        with _recipes(name, config_dir):
            extra = [] if config_dir is None else ["hydra.searchpath=[pkg://qat.configs,pkg://qat.recipes]"]
            return compose(name, overrides=[*extra, *overrides])
    # Hydra raises a plain ValueError for some overrides, such as `logger=null`.
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise ConfigurationError(f"the recipe {name!r} cannot be composed: {as_sentence(error)}") from error


def _recipes(name: str, config_dir: Path | None):
    """Hydra, looking for recipes in `config_dir` where that has one called `name`, else in the package."""
    if config_dir is not None and (config_dir / f"{name}.yaml").is_file():
        return initialize_config_dir(str(config_dir.resolve()), job_name="qat-check", version_base="1.3")
    return initialize_config_module("qat.recipes", job_name="qat-check", version_base="1.3")


def check(config: DictConfig) -> str:
    """The preflight of a composed recipe, from its first training batch. Nothing is trained and nothing written."""
    parts.check_complete(config)
    pytorch_lightning.seed_everything(config.seed, verbose=False)
    data, model = parts.data_of(config), parts.model_of(config)
    data.setup("fit")
    loader = data.train_dataloader()
    network = find_network(model, None)
    quant = parts.quant_of(config)
    handle = qat.prepare(network, inputs_of(next(iter(loader)), network), quant, config.export.runtime)
    schedule = parts.schedule_of(config)
    if schedule is None:
        schedule = qat.Schedule(start=1.0, freeze_observers=1.0, freeze_batch_norm=1.0)
    schedule.check_reaches(quant.weight.bits, quant.activation.bits)
    epochs = config.trainer.max_epochs
    return preflight(handle, schedule, Progress(total_epochs=epochs, total_steps=epochs * len(loader)))


if __name__ == "__main__":
    sys.exit(main())
