"""From a composed config to the objects it names; the only place that knows what the config's keys mean."""

import copy
import dataclasses
from pathlib import Path

import pytorch_lightning
import yaml
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import Callback, ModelCheckpoint

import qat
from qat.cli.failure import ConfigErrors, as_sentence
from qat.emitters import NONLINEAR, check_nonlinear
from qat.errors import ConfigurationError
from qat.files import write_whole
from qat.integer.images import ImageScaling
from qat.real.program import RealProgram
from qat.real.storage import JSON_NAME as REAL_PROGRAM_JSON
from qat.targets import config_for, target_named

#: In the folder of a run: what training leaves to go on from.
CHECKPOINTS = Path("checkpoints")
#: Likewise: its settings.
SETTINGS = Path(".hydra/config.yaml")

#: What exported files take: the network's own numbers, or raw pictures.
INPUTS = ("real", "uint8_image")

#: The groups that every recipe has.
REQUIRED = ("data", "model", "trainer", "quant", "export")

#: Settings that are counts, and the least that each can be; null, where a recipe allows it, leaves the choice open.
COUNTS = {"seed": 0, "threads": 1, "trainer.max_epochs": 1, "post_training.batches": 1}


def check_complete(config: DictConfig) -> None:
    """Refuse a recipe in which a part is missing, two contradict each other, or a count is none."""
    if missing := _absent(config):
        raise ConfigurationError(
            f"the recipe has no {' and no '.join(missing)}; add each to its defaults, for example "
            f"'- {missing[0]}: NAME', with NAME from configs/{missing[0]}/."
        )
    if config.get("post_training") is not None and config.get("schedule") is not None:
        raise ConfigurationError(
            "the recipe has both a schedule, for quantization while training, and post_training, for quantization "
            "after it; remove one of the two."
        )
    # weights that are trained already can be quantized as they are
    as_they_are = config.get("post_training") is not None and config.model.get("checkpoint") is not None
    for setting, least in (COUNTS | {"trainer.max_epochs": 0 if as_they_are else 1}).items():
        value = OmegaConf.select(config, setting)
        endless = setting == "trainer.max_epochs" and value == -1  # of which max_steps makes an end
        if value is not None and not endless and not (type(value) is int and value >= least):
            raise ConfigurationError(f"{setting} is {value!r}; set it to a whole number from {least} on.")


def settled(config: DictConfig) -> DictConfig:
    """The recipe with what it leaves to its target decided: runtimes in `export`, and in `quant` every grid.

    Raises `ConfigurationError` where what it does decide is nothing that the target runs.
    """
    config = copy.deepcopy(config)
    runtimes = runtimes_of(config)
    config.export.runtime = list(runtimes) if len(runtimes) > 1 else runtimes[0]
    quant = config_for(quant_of(config), runtimes)
    target_named(runtimes).check(quant)
    check_nonlinear(nonlinear_of(config), runtimes)
    config.quant = {"_target_": "qat.QuantConfig", "_convert_": "all", **dataclasses.asdict(quant)}
    return config


def keep(config: DictConfig, run_dir: Path) -> None:
    """Write `config` as the settings of a run, for `saved_config`, where Hydra keeps some."""
    if (run_dir / SETTINGS).is_file():
        write_whole(run_dir / SETTINGS, OmegaConf.to_yaml(config).encode())


def data_of(config: DictConfig) -> pytorch_lightning.LightningDataModule:
    with ConfigErrors():
        return instantiate(config.data)


def model_of(config: DictConfig) -> pytorch_lightning.LightningModule:
    with ConfigErrors():
        return instantiate(config.model)


def quant_of(config: DictConfig) -> "qat.QuantConfig":
    with ConfigErrors():
        return instantiate(config.quant)


def post_training_of(config: DictConfig) -> "qat.PostTraining":
    """What is done after training in float; a recipe of one's own may name settings alone."""
    with ConfigErrors():
        given = instantiate(config.post_training)
        if isinstance(given, DictConfig):
            known = [each.name for each in dataclasses.fields(qat.PostTraining)]
            if unknown := [name for name in given if name not in known]:
                raise ConfigurationError(f"post_training has no {unknown[0]}; it has {', '.join(known)}.")
            given = qat.PostTraining(**OmegaConf.to_container(given))
    return given


def schedule_of(config: DictConfig) -> "qat.Schedule | None":
    with ConfigErrors():
        return instantiate(config.get("schedule"))


def callback_of(
    config: DictConfig, export_dir: Path | None = None, image_input: ImageScaling | None = None
) -> "qat.QATCallback":
    """The callback that quantizes while training, as `quant`, `schedule` and `export` describe it."""
    return qat.QATCallback(
        quant=quant_of(config),
        schedule=schedule_of(config),
        target=runtimes_of(config),
        export_dir=export_dir,
        nonlinear=nonlinear_of(config),
        image_input=image_input,
    )


def runtimes_of(config: DictConfig) -> tuple[str, ...]:
    """The runtimes to export for: `target`, or else `export.runtime`, one or a list of them."""
    named = config.export.runtime if config.get("target") is None else config.target
    target = target_named([named] if isinstance(named, str) else list(named or ()))
    return target.runtimes


def nonlinear_of(config: DictConfig) -> str:
    """How softmax, normalization and division are exported, checked; as integers where the config does not say."""
    nonlinear = config.export.get("nonlinear")
    nonlinear = NONLINEAR[0] if nonlinear is None else nonlinear
    check_nonlinear(nonlinear)
    return nonlinear


def image_input_of(config: DictConfig, data: pytorch_lightning.LightningDataModule) -> ImageScaling | None:
    """How raw pictures become the network's input, where `export.input` asks for them, as the data module says it."""
    kind = config.export.get("input", INPUTS[0])
    if kind not in INPUTS:
        raise ConfigurationError(f"export.input is {kind!r}; choose one of {', '.join(INPUTS)}.")
    if kind != INPUTS[0] and not quant_of(config).is_integer:
        raise ConfigurationError(
            f"export.input is {kind!r}, which needs an integer input, but quant.activations is "
            f"{config.quant.activations!r}; set export.input=real, or quant.activations=static."
        )
    return None if kind == INPUTS[0] else scaling_of(data, config.export.get("channels_last", False))


def scaling_of(data: pytorch_lightning.LightningDataModule, channels_last: bool) -> ImageScaling:
    """The `image_scaling` of a data module. Raises `ConfigurationError` where it says none."""
    scaling = getattr(data, "image_scaling", None)
    if scaling is None:
        raise ConfigurationError(
            f"{type(data).__name__} has no image_scaling, so nobody knows how its pictures became numbers; give it a "
            "qat.integer.images.ImageScaling, or set export.input=real."
        )
    return dataclasses.replace(scaling, channels_last=channels_last)


def trainer_of(config: DictConfig, run_dir: Path, callbacks: list[Callback]) -> pytorch_lightning.Trainer:
    """A trainer that keeps logs and the checkpoint of the last epoch in `run_dir`."""
    checkpoint = ModelCheckpoint(dirpath=run_dir / CHECKPOINTS, filename="{epoch}", save_last="link")
    with ConfigErrors():
        make_logger = instantiate(config.get("logger"))
        logger = False if make_logger is None else make_logger(save_dir=str(run_dir))
        return instantiate(
            config.trainer, default_root_dir=str(run_dir), logger=logger, callbacks=[*callbacks, checkpoint]
        )


def program_of(folder: Path) -> "qat.IntegerProgram | RealProgram":
    """The program that a finished run left in a folder."""
    return RealProgram.load(folder) if (folder / REAL_PROGRAM_JSON).is_file() else qat.IntegerProgram.load(folder)


def saved_config(run_dir: Path) -> DictConfig:
    """The config of a finished run, as its folder keeps it. Raises `ConfigurationError` if this is no such folder."""
    path = run_dir / SETTINGS
    if not path.is_file():
        raise ConfigurationError(
            f"{str(run_dir)!r} is not the folder of a run: it has no {SETTINGS}; give a folder that qat-train "
            "made, such as outputs/digits_cnn/<date>."
        )
    try:
        config = OmegaConf.load(path)
        if not isinstance(config, DictConfig):
            raise ValueError("it is no mapping")
        if absent := _absent(config):
            raise ValueError(f"it has no {' and no '.join(absent)}")
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigurationError(
            f"{str(path)!r} is damaged ({as_sentence(error)}); take that of another run of the recipe, or train again."
        ) from error
    return config


def _absent(config: DictConfig) -> list[str]:
    return [name for name in REQUIRED if config.get(name) is None]
