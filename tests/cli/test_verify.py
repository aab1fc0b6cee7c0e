"""qat-verify on runs that are whole, mixed up or damaged."""

import hashlib
import json
import shutil

import pytest

from qat.cli import export, report, verify


def test_a_finished_run_is_verified_again(finished, capsys):
    assert verify.main([str(finished)]) == 0
    assert "verified on 128 samples: equal" in capsys.readouterr().out


def test_a_run_with_a_layer_in_float_is_exported_and_verified_as_such(tmp_path, capsys, qat_train):
    result = qat_train(tmp_path, "hydra.run.dir=run", "quant.rules=[{name: conv2, quantize: false}]")
    assert result.returncode == 0, result.stderr
    assert "left in float, as islands between integers: conv2 (conv2d)" in result.stdout
    assert "float islands" in result.stdout and "NOT EQUAL" not in result.stdout
    assert verify.main([str(tmp_path / "run")]) == 0
    assert "equal, but 1 operation is a float island" in capsys.readouterr().out
    assert export.main([str(tmp_path / "run")]) == 0
    assert verify.main([str(tmp_path / "run")]) == 0
    assert report.main([str(tmp_path / "run")]) == 0
    assert "equal, with 1 float island<" in (tmp_path / "run" / "integer" / "report.html").read_text()


def test_a_file_of_another_program_does_not_pass(finished, tmp_path, capsys, qat_train):
    result = qat_train(tmp_path, "hydra.run.dir=other", "seed=1")
    assert result.returncode == 0, result.stderr
    shutil.copytree(finished, tmp_path / "mixed")
    shutil.copy(tmp_path / "other" / "integer" / "model.onnx", tmp_path / "mixed" / "integer" / "model.onnx")
    assert verify.main([str(tmp_path / "mixed")]) == 1
    assert "model.onnx was changed after it was certified" in capsys.readouterr().err
    (tmp_path / "mixed" / "integer" / "certificate.json").unlink()
    assert verify.main([str(tmp_path / "mixed")]) == 1
    assert "is not the integer program beside it" in capsys.readouterr().err
    assert not (tmp_path / "mixed" / "integer" / "certificate.json").exists()


def test_the_certificate_is_derived_again_on_the_test_split(finished, capsys):
    content = json.loads((finished / "integer" / "certificate.json").read_text())
    assert content["data"] == {"samples": 128, "split": "test"}
    [file] = content["files"].values()
    path = finished / "integer" / "model.onnx"
    assert file["sha256"] == {"model.onnx": hashlib.sha256(path.read_bytes()).hexdigest()}
    assert file["bytes"] == path.stat().st_size and file["float_ops"] == []
    assert file["data_codes"]["differing"] == file["random_codes"]["differing"] == 0
    assert {row["kind"] for row in file["operations"]} >= {"QuantizeLinear", "QLinearConv", "DequantizeLinear"}
    margin = content["program"]["accumulators"]
    assert margin["available"] == 32 and 8 < margin["data"] <= margin["worst_case"] <= 32
    assert verify.main([str(finished), "--certificate"]) == 0
    assert "derived again for onnxruntime, no difference" in capsys.readouterr().out


@pytest.mark.parametrize(
    "before, after, sentence",
    [
        ('"worst_case": ', '"worst_case": 1', "program.accumulators.worst_case is "),
        ('"float_ops": []', '"float_ops": ["Conv first"]', "files.onnxruntime.float_ops is [], certified as "),
        ('"samples": 128', '"samples": 127', "data.samples is 128, certified as 127"),
        ('"sha256"', '"sha1"', "is damaged (a file has no hash)"),
        ('"format": 1', '"format": 2', "is damaged (it is no certificate of format 1)"),
        ("{", "", "is damaged ("),
    ],
)
def test_a_certificate_that_says_otherwise_fails(finished, tmp_path, capsys, before, after, sentence):
    shutil.copytree(finished, tmp_path / "run", symlinks=True)
    path = tmp_path / "run" / "integer" / "certificate.json"
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))
    assert verify.main([str(tmp_path / "run"), "--certificate"]) == 1
    assert sentence in capsys.readouterr().err


def test_the_float_network_has_the_weights_of_the_run(finished, tmp_path, capsys):
    assert verify.main([str(finished)]) == 0
    assert "float" in capsys.readouterr().out.splitlines()[-2]
    shutil.copytree(finished, tmp_path / "run", symlinks=True)
    (tmp_path / "run" / "integer" / "trained.ckpt").write_bytes(b"damaged")
    assert verify.main([str(tmp_path / "run")]) == 1
    assert "trained.ckpt' does not hold the weights of the run's model" in capsys.readouterr().err
    (tmp_path / "run" / "integer" / "trained.ckpt").unlink()
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    assert verify.main([str(tmp_path / "run")]) == 0
    assert "the float network is not run: there is no checkpoint" in capsys.readouterr().err


def test_a_run_whose_file_is_gone_is_told_so(finished, tmp_path, capsys):
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "integer" / "model.onnx").unlink()
    assert verify.main([str(tmp_path / "run")]) == 1
    assert "model.onnx' does not exist; export it with qat-export" in capsys.readouterr().err


def test_a_folder_that_is_no_run_is_refused(tmp_path, capsys):
    assert verify.main([str(tmp_path)]) == 1
    assert "is not the folder of a run: it has no .hydra/config.yaml" in capsys.readouterr().err


@pytest.mark.parametrize(
    "file, content, sentence",
    [
        ("integer/model.onnx", b"\x08\x07no protobuf", "model.onnx was changed after it was certified"),
        ("integer/program.json", b"{}", "export the program again"),
        ("integer/program.safetensors", b"", "is damaged, or not of this program.json"),
        (".hydra/config.yaml", b"data: [", "config.yaml' is damaged (while parsing"),
        (".hydra/config.yaml", b"\xff\xfe\x00", "config.yaml' is damaged ("),
        (".hydra/config.yaml", b"", "config.yaml' is damaged (it has no data and no model and no trainer"),
        (".hydra/config.yaml", b"- a", "config.yaml' is damaged (it is no mapping)"),
    ],
)
def test_a_damaged_file_is_one_sentence(finished, tmp_path, capsys, file, content, sentence):
    shutil.copytree(finished, tmp_path / "run", symlinks=True)
    (tmp_path / "run" / file).write_bytes(content)
    assert verify.main([str(tmp_path / "run")]) == 1
    captured = capsys.readouterr()
    assert sentence in captured.err and captured.err.count("\n") == 1


def test_the_checkpoint_that_the_run_started_from_is_not_needed(finished, tmp_path, capsys):
    shutil.copytree(finished, tmp_path / "run", symlinks=True)
    config = tmp_path / "run" / ".hydra" / "config.yaml"
    config.write_text(config.read_text().replace("checkpoint: null", "checkpoint: gone.pt"))
    assert verify.main([str(tmp_path / "run")]) == 0
