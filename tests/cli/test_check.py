import pytest

from qat.cli.check import compose_recipe, main
from qat.errors import ConfigurationError


def test_it_prints_layers_widths_and_schedule_and_writes_nothing(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["-cn", "digits_cnn", "quant.weight.bits=3"]) == 0
    printed = capsys.readouterr().out
    assert "DigitsCNN: w3a8 for onnxruntime" in printed
    assert "conv2" in printed and "schedule:" in printed
    assert list(tmp_path.iterdir()) == []


def test_a_recipe_without_a_schedule_is_checked_too(capsys):
    assert main(["-cn", "digits_ptq"]) == 0
    assert "conv2" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["-cn", "digits"], "the recipe 'digits' cannot be composed"),
        (["quant.weihgt.bits=3"], "Could not override 'quant.weihgt.bits'"),
        (["quant.weight.bits=9"], "bits is 9; a width is one of"),
        (["quant.rules=[{name:convolution1,weight_bits:4}]"], "matches no layer; the nearest names are conv"),
        (["quant.weight.bits=4", "schedule.weight_bits=[[0,8],[5,6]]"], "ends at 6 bits, above the 4 bits"),
        (["data=cifar10", "data.dir=absent"], "the data folder 'absent' does not exist; set data.dir="),
        (["model.checkpoint=absent.pt"], "the checkpoint 'absent.pt' does not exist"),
        (["logger=null"], "the recipe 'digits_cnn' cannot be composed"),
        (["-cd", "absent"], "the folder 'absent' does not exist"),
    ],
)
def test_a_mistake_is_one_sentence_on_stderr(capsys, arguments, sentence):
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert sentence in captured.err and captured.err.count("\n") == 1
    assert captured.out == ""


def test_recipes_of_ones_own_use_the_parts_of_the_package(tmp_path):
    (tmp_path / "mine.yaml").write_text("defaults:\n  - quant: w2a2\n")
    assert compose_recipe("mine", config_dir=tmp_path).quant.weight.bits == 2
    with pytest.raises(ConfigurationError, match="'mine' cannot be composed"):
        compose_recipe("mine")
