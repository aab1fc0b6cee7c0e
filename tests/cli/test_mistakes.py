"""What a user reads after a slip on the command line of qat-train."""

import pytest
from hydra import compose, initialize_config_dir, initialize_config_module
from hydra.errors import MissingConfigException
from hydra.utils import instantiate

from qat.cli.mistakes import recipe_names, sentence_of
from qat.cli.search_path import search_package_parts
from qat.spec import QuantConfig


def mistake(name: str, *overrides: str) -> str:
    search_package_parts()
    with initialize_config_module("qat.recipes", version_base="1.3"), pytest.raises(Exception) as caught:
        compose(name, overrides=list(overrides))
    return sentence_of(caught.value)


def test_the_recipes_of_the_package_are_listed():
    assert {"cifar10_resnet20_w4a4", "digits_cnn", "digits_ptq"} <= set(recipe_names())


@pytest.mark.parametrize(
    "name, override, sentence",
    [
        ("digit_cnn", "seed=1", "there is no recipe 'digit_cnn'; choose one of "),
        (
            "digits_cnn",
            "quant=w9a9",
            "quant has no part 'w9a9'; choose one of fp16, w2a2, w2a8, w3a3, w4_weight_only, w4a4, w4a8, w8_dynamic, "
            "w8a8.",
        ),
        (
            "digits_cnn",
            "quant=w5a7",
            "quant has no part 'w5a7'; leave it out and write quant.weight.bits=5 quant.activation.bits=7, or choose "
            "one of fp16, w2a2, w2a8, w3a3, w4_weight_only, w4a4, w4a8, w8_dynamic, w8a8.",
        ),
        ("digits_cnn", "quantt=w4a4", "there is no setting 'quantt'; did you mean quant, or add it with a +"),
        (
            "digits_cnn",
            "trainer.max_epoch=3",
            "there is no setting 'max_epoch' in trainer; did you mean max_epochs, or",
        ),
        ("digits_cnn", "quant.weight.x=3", "there is no setting 'x' in quant.weight; choose one of bits, signed, "),
        ("digits_cnn", "quant.weight.bits", "the override 'quant.weight.bits' cannot be read; write NAME=VALUE"),
        ("digits_cnn", "quant.rules=[{name:conv1", "the override 'quant.rules=[{name:conv1' cannot be read; "),
        ("digits_cnn", "resume=epoch=1.ckpt", "the override 'resume=epoch=1.ckpt' cannot be read; write NAME=VALUE"),
        ("digits_cnn", "logger=null", "a part cannot be null; leave it out of the recipe with ~NAME"),
    ],
)
def test_a_slip_is_one_sentence_with_the_remedy(name, override, sentence):
    told = mistake(name, override)
    assert told.startswith(sentence) and told.endswith(".") and "\n" not in told


def test_widths_without_a_part_are_written_as_the_sentence_says():
    search_package_parts()
    with initialize_config_module("qat.recipes", version_base="1.3"):
        widths = compose("digits_cnn", overrides=["quant.weight.bits=5", "quant.activation.bits=7"])
    config = instantiate(widths.quant)
    assert (config.weight, config.activation) == (
        QuantConfig.parse("w5a7").weight,
        QuantConfig.parse("w5a7").activation,
    )


def test_a_recipe_built_on_another_one_is_told_to_copy_it(tmp_path):
    (tmp_path / "mine.yaml").write_text("defaults: [digits_cnn, _self_]\n")
    search_package_parts()
    with initialize_config_dir(str(tmp_path), version_base="1.3"), pytest.raises(Exception) as caught:
        compose("mine")
    assert "a recipe cannot be built on another one" in sentence_of(caught.value)


def test_a_group_that_nobody_has_is_a_slip_in_the_recipe():
    told = sentence_of(MissingConfigException("Could not find 'dta/digits'", "dta/digits", options=[]))
    assert told == "there is no group 'dta' of parts to take 'digits' from; look for a slip in the recipe's defaults."


def test_a_folder_that_cannot_be_made_is_named():
    told = sentence_of(PermissionError(13, "Permission denied", "/srv/runs"))
    assert told.startswith("the folder of the run cannot be made (Permission denied: /srv/runs); set hydra.run.dir=")


def test_anything_else_is_passed_on_in_one_line():
    assert sentence_of(RuntimeError("a\nb")) == "the recipe cannot be composed: a b."
