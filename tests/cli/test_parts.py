import pytest
from omegaconf import OmegaConf

from qat.cli import parts
from qat.cli.check import compose_recipe
from qat.errors import ConfigurationError


def test_a_missing_part_is_named():
    config = OmegaConf.create({"data": {}, "model": {}, "trainer": {}, "export": {}})
    with pytest.raises(ConfigurationError, match="the recipe has no quant; add each to its defaults"):
        parts.check_complete(config)


def test_quantization_is_either_in_training_or_after_it():
    config = compose_recipe("digits_cnn", ["+post_training.batches=1"])
    with pytest.raises(ConfigurationError, match="both a schedule, .* and post_training"):
        parts.check_complete(config)


@pytest.mark.parametrize(
    "override", ["seed=-1", "seed=x", "threads=0", "trainer.max_epochs=abc", "trainer.max_epochs=1.5"]
)
def test_a_count_is_a_whole_number(override):
    setting, value = override.split("=")
    with pytest.raises(ConfigurationError, match=f"{setting} is '?{value}'?; set it to a whole number from [01] on"):
        parts.check_complete(compose_recipe("digits_cnn", [override]))


def test_a_run_may_be_ended_by_its_steps():
    parts.check_complete(compose_recipe("digits_cnn", ["trainer.max_epochs=-1", "+trainer.max_steps=10"]))


def test_a_run_without_a_logger_is_possible(tmp_path):
    config = compose_recipe("digits_cnn", ["~logger", "trainer.accelerator=cpu"])
    assert parts.trainer_of(config, tmp_path, []).loggers == []


def test_a_saved_config_is_read_back(tmp_path):
    (tmp_path / ".hydra").mkdir()
    OmegaConf.save(compose_recipe("digits_cnn"), tmp_path / ".hydra" / "config.yaml")
    assert parts.saved_config(tmp_path).data.batch_size == 64


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="is not the folder of a run: it has no .hydra/config.yaml"):
        parts.saved_config(tmp_path)


def test_only_a_checkpoint_that_is_quantized_as_it_is_needs_no_epoch():
    arguments = ["trainer.max_epochs=0"]
    parts.check_complete(compose_recipe("cifar10_resnet20_ptq", [*arguments, "model.checkpoint=float.pt"]))
    for recipe, more in (("cifar10_resnet20_ptq", []), ("cifar10_resnet20_w8a8", ["model.checkpoint=float.pt"])):
        with pytest.raises(ConfigurationError, match="trainer.max_epochs is 0; set it to a whole number from 1 on"):
            parts.check_complete(compose_recipe(recipe, [*arguments, *more]))


def test_softmax_and_norms_are_exported_as_integers_unless_islands_are_chosen():
    assert parts.nonlinear_of(compose_recipe("digits_cnn", [])) == "integer"
    config = compose_recipe("digits_cnn", ["export.nonlinear=float_island"])
    assert parts.callback_of(config).nonlinear == "float_island"
    assert parts.nonlinear_of(OmegaConf.create({"export": {"runtime": "onnxruntime"}})) == "integer"
    with pytest.raises(ConfigurationError, match="nonlinear is 'float'; choose one of integer, float_island"):
        parts.nonlinear_of(compose_recipe("digits_cnn", ["export.nonlinear=float"]))
    with pytest.raises(ConfigurationError, match="files for c and litert compute with integers alone"):
        parts.settled(compose_recipe("digits_cnn", ["target=[onnxruntime,c,litert]", "export.nonlinear=float_island"]))


@pytest.mark.parametrize(
    ("overrides", "runtimes", "kind"),
    [
        ([], "onnxruntime", "unsigned affine"),
        (["export=tensorrt"], "tensorrt", "signed symmetric"),
        (["export.runtime=tensorrt", "quant=w4a4"], "tensorrt", "signed symmetric"),
        (["target=[onnxruntime,litert]"], ["onnxruntime", "litert"], "unsigned affine"),
        (["target=[litert,c,tensorrt]", "+quant.weight={bits:4}"], ["litert", "c", "tensorrt"], "signed symmetric"),
    ],
)  # fmt: skip
def test_one_key_gives_the_scheme_that_all_runtimes_take_and_it_stands_in_the_saved_config(
    overrides, runtimes, kind, tmp_path
):
    composed = compose_recipe("digits_ptq", overrides)
    config = parts.settled(composed)
    (tmp_path / parts.SETTINGS.parent).mkdir()
    OmegaConf.save(composed, tmp_path / parts.SETTINGS)
    parts.keep(config, tmp_path)
    saved = parts.saved_config(tmp_path)
    assert saved == config == parts.settled(saved)
    assert saved.export.runtime == runtimes
    assert parts.quant_of(saved).activation.kind == kind
    assert saved.quant.activation.signed is saved.quant.activation.symmetric is (kind == "signed symmetric")


def test_a_scheme_that_the_target_does_not_run_is_refused_before_anything_is_built():
    for recipe in ("digits_ptq", "digits_cnn"):
        config = compose_recipe(recipe, ["target=[onnxruntime,tensorrt]", "quant.activation.symmetric=false"])
        with pytest.raises(ConfigurationError, match="unsigned affine, but onnxruntime and tensorrt need signed"):
            parts.settled(config)
