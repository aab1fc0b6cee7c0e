"""Every recipe composes, and its parts can be built."""

import dataclasses
import re
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

import qat
from qat.cli import parts
from qat.cli.check import compose_recipe
from qat.errors import ConfigurationError

ROOT = Path(__file__).parents[1]
RECIPES = sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))
GROUPS = sorted(path.name for path in (ROOT / "configs").iterdir() if path.is_dir() and any(path.glob("*.yaml")))
CHOICES = [(group, path.stem) for group in GROUPS for path in sorted((ROOT / "configs" / group).glob("*.yaml"))]


def test_the_finished_runs_are_there():
    assert {
        "digits_cnn",
        "digits_ptq",
        "digits_qat",
        "digits_dynamic",
        "digits_weight_only",
        "digits_fp16",
        "cifar10_resnet20_w8a8",
        "cifar10_resnet20_w4a4",
        "cifar10_resnet20_ptq",
        "topics_gpt_w8a8",
        "topics_gpt_ptq",
        "shapes_detector_w8a8",
        "shapes_detector_ptq",
        "cifar10_resnet8",
        "cifar10_mobilenet_v2",
        "cifar10_vit",
        "keywords_ds_cnn",
    } <= set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_opens_with_its_own_command(name):
    first = (ROOT / "recipes" / f"{name}.yaml").read_text().splitlines()[0]
    # digits_cnn is the default and needs no name.
    assert first == "# qat-train" if name == "digits_cnn" else first.startswith(f"# qat-train -cn {name}")


@pytest.mark.parametrize("name", RECIPES)
def test_every_command_in_a_recipe_composes(name):
    commands = re.findall(r"^# qat-train(.*)$", (ROOT / "recipes" / f"{name}.yaml").read_text(), re.MULTILINE)
    assert commands
    for arguments in map(str.split, commands):
        recipe = arguments[arguments.index("-cn") + 1] if "-cn" in arguments else "digits_cnn"
        assert recipe == name
        compose_recipe(name, [argument.split(",")[0] for argument in arguments if "=" in argument])


@pytest.mark.parametrize("name", RECIPES)
def test_the_parts_of_a_recipe_are_built(name, tmp_path):
    config = compose_recipe(name, ["trainer.accelerator=cpu"])
    parts.check_complete(config)
    assert parts.data_of(config).batch_size == config.data.batch_size
    model = parts.model_of(config)
    assert model.optimizer(model.parameters()).param_groups[0]["lr"] == config.optimizer.lr
    callbacks = [] if config.post_training is not None else [parts.callback_of(config, tmp_path)]
    trainer = parts.trainer_of(config, tmp_path, callbacks)
    assert trainer.max_epochs == config.trainer.max_epochs
    assert Path(trainer.logger.log_dir).is_relative_to(tmp_path)
    assert trainer.checkpoint_callback.dirpath == str(tmp_path / "checkpoints")


@pytest.mark.parametrize("name", [name for name in RECIPES if name != "digits_fp16"])  # which gives weights no grid
def test_a_recipe_can_be_swept_over_weight_widths(name):
    config = compose_recipe(name, ["quant.weight.bits=2"])
    for bits in (2, 3, 4, 8):
        config.quant.weight.bits = bits
        quant, schedule = parts.quant_of(config), parts.schedule_of(config)
        assert quant.weight.bits == bits
        if schedule is not None:
            schedule.check_reaches(quant.weight.bits, quant.activation.bits)


@pytest.mark.parametrize("preset", [stem for group, stem in CHOICES if group == "quant"])
def test_a_preset_in_yaml_is_the_preset_of_the_same_name(preset):
    name = preset.replace("_", "-")  # files have no dashes in their names
    assert parts.quant_of(compose_recipe("digits_cnn", [f"quant={preset}"])) == qat.QuantConfig.parse(name)


@pytest.mark.parametrize("group, choice", CHOICES)
def test_every_part_is_valid_yaml_and_fits_into_a_recipe(group, choice):
    yaml.safe_load((ROOT / "configs" / group / f"{choice}.yaml").read_text())
    recipe = "digits_ptq" if group == "post_training" else "digits_cnn"
    assert compose_recipe(recipe, [f"{group}={choice}"])


def test_every_setting_of_post_training_is_one_of_the_value_it_makes():
    default = parts.post_training_of(compose_recipe("digits_ptq", []))
    assert default == qat.PostTraining(batches=16)
    learned = parts.post_training_of(compose_recipe("digits_ptq", ["post_training=adaround"]))
    assert learned == qat.PostTraining(batches=16, bias_correction=True, adaround=qat.AdaRound())
    changed = ["post_training=adaround", "post_training.adaround.iterations=1000", "post_training.equalize=true"]
    longer = dataclasses.replace(learned, equalize=True, adaround=qat.AdaRound(iterations=1000))
    assert parts.post_training_of(compose_recipe("digits_ptq", changed)) == longer
    short = parts.post_training_of(compose_recipe("digits_ptq", ["post_training.adaround={iterations:5}"]))
    assert short == qat.PostTraining(batches=16, adaround=qat.AdaRound(iterations=5))


def test_the_name_of_the_family_is_the_same_run():
    assert compose_recipe("digits_qat", []) == compose_recipe("digits_cnn", [])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("post_training.equalize=3", "post_training.equalize is 3; write True or False"),
        ("post_training.adaround={steps:5}", "setting of post_training.adaround is 'steps'"),
        ("post_training.adaround={iterations:0}", "adaround.iterations is 0; write a whole number from 1 on"),
        ("+post_training.rounding=up", "rounding"),
    ],
)
def test_a_setting_of_post_training_that_cannot_be_is_refused(override, message):
    config = compose_recipe("digits_ptq", [override])
    with pytest.raises(ConfigurationError, match=message):
        parts.post_training_of(config)


def test_a_recipe_may_name_settings_of_post_training_alone():
    config = OmegaConf.create({"post_training": {"batches": 3, "equalize": True}})
    assert parts.post_training_of(config) == qat.PostTraining(batches=3, equalize=True)
    with pytest.raises(ConfigurationError, match="post_training has no rounding; it has batches, equalize"):
        parts.post_training_of(OmegaConf.create({"post_training": {"rounding": "up"}}))


def test_rules_and_ladders_are_taken_from_yaml():
    config = compose_recipe(
        "digits_cnn",
        ["quant.rules=[{name:conv1,weight_bits:5}]", "schedule.weight_bits=[[0,8],[5,4]]"],
    )
    assert parts.quant_of(config).rules == (qat.Rule("conv1", weight_bits=5),)
    assert parts.schedule_of(config).weight_bits == ((0, 8), (5, 4))
