"""What one run of a recipe leaves, resumes and refuses."""

import json

import pytest
import torch

from qat.cli import parts
from qat.cli.check import compose_recipe
from qat.cli.run import verify_split
from qat.emitters import exported_in
from qat.emitters.onnxruntime import open_session, run_session
from qat.errors import ConfigurationError
from qat.integer.images import ImageScaling
from qat.integer.program import IntegerProgram

pytestmark = pytest.mark.filterwarnings(
    # Shown to the user of resume= as well: the checkpoints of the new run go into its own folder.
    "ignore:The dirpath has changed:UserWarning",
    # Said twice: as the callback's warning and, in the end, as the sentence the tests look for.
    "ignore:the run ended:UserWarning",
)


def test_what_each_layer_loses_is_in_the_report_under_the_names_of_the_history(finished):
    report = json.loads((finished / "integer" / "report.json").read_text())
    rows = {layer["name"]: layer for layer in report["layers"]}
    for name in ("conv1", "conv2", "conv3", "linear"):
        assert rows[name]["sqnr_db"] > 5 and rows[name]["activation_sqnr_db"] > 5
        assert 0 <= rows[name]["clip_share"] < 1
    assert rows["add"]["activation_sqnr_db"] > 5 and "sqnr_db" not in rows["add"]
    epochs = json.loads((finished / "integer" / "history.json").read_text())["epochs"]
    assert {"conv1.weight", "conv1.output", "add.output", "linear.output"} <= set(epochs[-1]["layers"])


def test_quantization_after_training_leaves_the_same_files(tmp_path, qat_train, pictures):
    result = qat_train(tmp_path, "-cn", "digits_ptq", "hydra.run.dir=run", "post_training.batches=2")
    assert result.returncode == 0, result.stderr
    report = json.loads((tmp_path / "run" / "integer" / "report.json").read_text())
    assert report["recipe"] == "digits_ptq" and set(report["metrics"]) == {"float", "fake_quant", "integer"}
    assert all(layer["activation_sqnr_db"] > 5 for layer in report["layers"] if layer["weights"])
    assert report["mismatches"]["onnxruntime"]["differing"] == 0


def test_a_run_that_ends_early_exports_nothing_and_resumes_from_its_checkpoint(tmp_path, qat_train):
    early = qat_train(tmp_path, "hydra.run.dir=early", "+trainer.max_time={seconds: 0}", "+trainer.min_epochs=1")
    assert early.returncode == 1
    assert "before quantization was final, so nothing was exported" in early.stderr.splitlines()[-1]
    assert not (tmp_path / "early" / "integer" / "model.onnx").exists()
    resume = "resume='early/checkpoints/epoch=0.ckpt'"
    resumed = qat_train(tmp_path, "hydra.run.dir=resumed", resume, "+trainer.max_time={hours: 1}")
    assert resumed.returncode == 0, resumed.stderr
    assert (tmp_path / "resumed" / "integer" / "model.onnx").exists()


def test_a_finished_run_has_nothing_to_resume(finished, tmp_path, qat_train):
    checkpoint = next((finished / "checkpoints").glob("epoch=*.ckpt"))
    result = qat_train(tmp_path, "hydra.run.dir=run", f"resume='{checkpoint}'")
    assert result.returncode == 1
    assert "had reached trainer.max_epochs=2 already" in result.stderr.splitlines()[-1]


def test_the_checkpoint_of_another_network_is_not_resumed(finished, tmp_path, qat_train):
    checkpoint = next((finished / "checkpoints").glob("epoch=*.ckpt"))
    result = qat_train(
        tmp_path, "hydra.run.dir=run", f"resume='{checkpoint}'", "model.num_classes=11", "model.network.num_classes=11"
    )
    assert result.returncode == 1
    assert "network.linear.weight (10, 8) instead of (11, 8)" in result.stderr.splitlines()[-1]


def test_the_checkpoint_of_another_width_is_not_resumed(finished, tmp_path, qat_train):
    checkpoint = next((finished / "checkpoints").glob("epoch=*.ckpt"))
    result = qat_train(tmp_path, "hydra.run.dir=run", f"resume='{checkpoint}'", "quant.weight.bits=3")
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert "with" in result.stderr.splitlines()[-1]


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 half a checkpoint"])
def test_a_checkpoint_that_is_gone_or_damaged_is_one_sentence(tmp_path, qat_train, content):
    if content is not None:
        (tmp_path / "last.ckpt").write_bytes(content)
    result = qat_train(tmp_path, "hydra.run.dir=run", "resume=last.ckpt")
    assert result.returncode == 1 and "Traceback" not in result.stderr
    expected = "does not exist; set resume=" if content is None else "cannot be read as weights alone"
    assert "'last.ckpt'" in result.stderr and expected in result.stderr.splitlines()[-1]


def test_a_run_may_start_from_the_checkpoint_of_another_and_names_it_as_its_float_network(
    finished, tmp_path, qat_train
):
    checkpoint = next((finished / "checkpoints").glob("epoch=*.ckpt"))
    result = qat_train(tmp_path, "hydra.run.dir=run", f"model.checkpoint='{checkpoint}'", "schedule=fine_tune")
    assert result.returncode == 0, result.stderr
    report = json.loads((tmp_path / "run" / "integer" / "report.json").read_text())
    assert report["conditions"]["float_metrics"] == "the checkpoint, before training"


def test_a_model_without_metrics_is_compared_by_its_codes(finished):
    config = compose_recipe("digits_cnn", ["data.limit=8", "model.network.width=4"])
    program = IntegerProgram.load(finished / "integer")
    report = verify_split(program, exported_in(finished / "integer"), parts.data_of(config), torch.nn.Identity())
    assert report.ok and report.samples == 8 and report.metrics == {}


@pytest.mark.parametrize("recipe", ["digits_cnn", "digits_ptq"])
def test_a_run_may_leave_a_file_of_raw_pictures(tmp_path, qat_train, recipe):
    settings = ["export.input=uint8_image", "export.channels_last=true"]
    if recipe == "digits_ptq":
        settings.append("post_training.batches=2")
    result = qat_train(tmp_path, "-cn", recipe, "hydra.run.dir=run", *settings)
    assert result.returncode == 0, result.stderr
    report = json.loads((tmp_path / "run" / "integer" / "report.json").read_text())
    assert report["mismatches"]["onnxruntime"]["differing"] == 0 and report["float_ops"] == []
    program = IntegerProgram.load(tmp_path / "run" / "integer")
    assert program.inputs[0].image == ImageScaling(largest=16, channels_last=True)
    pictures = torch.randint(0, 17, (3, 8, 8, 1), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    network = program.with_real_edges()(pictures.permute(0, 3, 1, 2).float() / 16)
    found = run_session(open_session(tmp_path / "run" / "integer" / "model.onnx"), {program.inputs[0].name: pictures})
    assert torch.equal(found[program.outputs[0].name], network)


def test_another_kind_of_input_is_refused_before_training(tmp_path, qat_train):
    result = qat_train(tmp_path, "hydra.run.dir=run", "export.input=jpeg")
    assert result.returncode == 1
    assert "export.input is 'jpeg'; choose one of real, uint8_image" in result.stderr.splitlines()[-1]


def test_what_a_runtime_cannot_run_is_refused_before_a_network_is_trained_that_is_quantized_afterwards(
    tmp_path, qat_train
):
    rule = "quant.rules=[{name: conv2, quantize: false}]"
    result = qat_train(tmp_path, "-cn", "digits_ptq", "hydra.run.dir=run", "target=[onnxruntime,litert]", rule)
    assert result.returncode == 1
    assert "litert cannot run this network: FloatIsland 'conv2'" in result.stderr.splitlines()[-1]
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_data_that_is_no_picture_is_refused_before_training():
    config = compose_recipe("topics_gpt_w8a8", ["export.input=uint8_image"])
    with pytest.raises(ConfigurationError, match="TextDataModule has no image_scaling, .* or set export.input=real"):
        parts.image_input_of(config, parts.data_of(config))
