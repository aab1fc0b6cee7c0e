"""qat-verify on runs that are whole, mixed up or damaged."""

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
    assert "is not the integer program beside it" in capsys.readouterr().err


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
        ("integer/model.onnx", b"\x08\x07no protobuf", "cannot load"),
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
