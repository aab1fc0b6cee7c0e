"""What Hydra says of a mistake on the command line or in a recipe, as one sentence with the remedy."""

import difflib
from collections.abc import Iterable
from importlib import resources
from pathlib import PurePath

from hydra.errors import ConfigCompositionException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from qat.cli.failure import as_sentence
from qat.errors import ConfigurationError
from qat.spec import QuantConfig


def recipe_names() -> list[str]:
    """The finished runs that the package brings along."""
    names = (PurePath(entry.name) for entry in resources.files("qat.recipes").iterdir())
    return sorted(name.stem for name in names if name.suffix == ".yaml")


def sentence_of(error: Exception) -> str:
    """What is wrong and what to do, for an error that Hydra raises before or between runs."""
    if isinstance(error, MissingConfigException):
        return _missing(error)
    if isinstance(error, OverrideParseException):
        return (
            f"the override {error.override!r} cannot be read; write NAME=VALUE, and a value with signs in it in quotes "
            "of its own, such as \"resume='epoch=1.ckpt'\"."
        )
    if isinstance(error.__cause__, OmegaConfBaseException) and isinstance(error, ConfigCompositionException):
        return _unknown_setting(error.__cause__)
    if isinstance(error, ConfigCompositionException) and "hydra.searchpath is only supported" in str(error):
        return f"a recipe cannot be built on another one ({as_sentence(error)}); copy that one and change the copy."
    if "Config group override must be" in str(error):
        return "a part cannot be null; leave it out of the recipe with ~NAME, for example ~logger."
    if isinstance(error, OSError):
        return (
            f"the folder of the run cannot be made ({error.strerror}: {error.filename}); "
            "set hydra.run.dir= to a folder that can be written."
        )
    return f"the recipe cannot be composed: {as_sentence(error).removesuffix('.')}."


def _missing(error: MissingConfigException) -> str:
    group, _, name = (error.missing_cfg_file or "").rpartition("/")
    if not group:
        return (
            f"there is no recipe {name!r}; choose one of {', '.join(recipe_names())}, or give the folder that holds "
            f"{name}.yaml with --config-dir."
        )
    if not error.options:
        return f"there is no group {group!r} of parts to take {name!r} from; look for a slip in the recipe's defaults."
    remedy = f"choose one of {', '.join(error.options)}"
    if group == "quant" and (settings := _settings_of(name)):
        remedy = f"leave it out and write {settings}, or {remedy}"
    return f"{group} has no part {name!r}; {remedy}."


def _settings_of(preset: str) -> str | None:
    """The settings that a preset without a part of its own stands for, None where it is no preset."""
    try:
        config = QuantConfig.parse(preset)
    except ConfigurationError:
        return None
    return f"quant.weight.bits={config.weight.bits} quant.activation.bits={config.activation.bits}"


def _unknown_setting(cause: OmegaConfBaseException) -> str:
    where, _, key = str(cause.full_key or cause.key).rpartition(".")
    parent = f" in {where}" if where else ""
    sentence = f"there is no setting {key!r}{parent}"
    if not isinstance(cause.parent_node, DictConfig):
        return f"{sentence}: {as_sentence(cause)}"
    return f"{sentence}; {_nearest(key, cause.parent_node)}, or add it with a + in front."


def _nearest(key: str, known: Iterable[str]) -> str:
    names = [str(name) for name in known if not str(name).startswith("_")]
    near = difflib.get_close_matches(key, names, n=1)
    return f"did you mean {near[0]}" if near else f"choose one of {', '.join(names)}"
