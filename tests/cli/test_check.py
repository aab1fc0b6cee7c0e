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
    printed = capsys.readouterr().out
    assert "conv2" in printed and "schedule:" not in printed
    assert "quantized after training, from 16 batches of training data" in printed


def test_what_the_runtime_refuses_is_named_below_the_table_and_the_exit_code_is_1(capsys, tmp_path, monkeypatch):
    (tmp_path / "oscillating.py").write_text(
        "import torch\n"
        "class Network(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.first, self.last = torch.nn.Linear(64, 8), torch.nn.Linear(8, 10)\n"
        "    def forward(self, images):\n"
        "        return self.last(torch.cumprod(self.first(images.flatten(1)), 1))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert (
        main(["~model.network.width", "~model.network.num_classes", "model.network._target_=oscillating.Network"]) == 1
    )
    captured = capsys.readouterr()
    assert "Network: w4a8 for simulation only" in captured.out and "first" in captured.out
    assert "onnxruntime would not run this network with integers alone: cumprod in the network at" in captured.err
    assert captured.err.count("\n") == 1


def test_a_rule_of_the_refusal_makes_an_island_that_the_check_names(capsys, tmp_path, monkeypatch):
    (tmp_path / "turning.py").write_text(
        "import torch\n"
        "class Network(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.first, self.last = torch.nn.Linear(64, 8), torch.nn.Linear(4, 10)\n"
        "    def forward(self, images):\n"
        "        return self.last(torch.atan2(*self.first(images.flatten(1)).chunk(2, 1)))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    recipe = ["~model.network.width", "~model.network.num_classes", "model.network._target_=turning.Network"]
    assert main(recipe) == 1
    rule = capsys.readouterr().err.partition("(in a recipe quant.rules: ")[2].partition("])")[0] + "]"
    assert rule == "[{name: 'atan2', quantize: false}]"
    assert main([*recipe, f"quant.rules={rule}"]) == 0
    assert "left in float, as islands between integers: atan2; the file will not be integer" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["-cn", "digits"], "there is no recipe 'digits'; choose one of"),
        (["quant.weihgt.bits=3"], "there is no setting 'weihgt' in quant; did you mean weight"),
        (["quant.weight.bits=9"], "bits is 9; a width is one of"),
        (["quant.rules=[{name:convolution1,weight_bits:4}]"], "matches no layer; the nearest names are conv"),
        (["quant.weight.bits=4", "schedule.weight_bits=[[0,8],[5,6]]"], "ends at 6 bits, above the 4 bits"),
        (["data=cifar10", "data.dir=absent"], "the data folder 'absent' does not exist; set data.dir="),
        (["model.checkpoint=absent.pt"], "the checkpoint 'absent.pt' does not exist"),
        (["logger=null"], "a part cannot be null; leave it out of the recipe with ~NAME"),
        (["trainer.max_epochs=0"], "trainer.max_epochs is 0; set it to a whole number from 1 on"),
        (["-cd", "absent"], "the folder 'absent' does not exist"),
    ],
)
def test_a_mistake_is_one_sentence_on_stderr(capsys, arguments, sentence):
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert sentence in captured.err and captured.err.count("\n") == 1
    assert captured.out == ""


@pytest.mark.parametrize("epochs", ["-1", "null"])
def test_a_run_of_unknown_length_is_told_that_shares_need_one(capsys, epochs):
    assert main([f"trainer.max_epochs={epochs}"]) == 1
    told = capsys.readouterr().err
    assert "of a run whose length is unknown; set max_epochs or max_steps" in told and told.count("\n") == 1


def test_steps_are_a_length_too(capsys):
    assert main(["trainer.max_epochs=-1", "+trainer.max_steps=300"]) == 0
    assert "note:" not in capsys.readouterr().out


def test_recipes_of_ones_own_use_the_parts_of_the_package(tmp_path):
    (tmp_path / "mine.yaml").write_text("defaults:\n  - quant: w2a2\n")
    assert compose_recipe("mine", config_dir=tmp_path).quant.weight.bits == 2
    (tmp_path / "quant").mkdir()
    (tmp_path / "quant" / "own.yaml").write_text("defaults: [w4a4, _self_]\nedge_bits: 4\n")
    assert compose_recipe("digits_cnn", ["quant=own"], config_dir=tmp_path).quant.edge_bits == 4
    with pytest.raises(ConfigurationError, match="there is no recipe 'mine'"):
        compose_recipe("mine")
