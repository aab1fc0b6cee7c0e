"""qat-export on a finished run."""

import shutil

import pytest

from qat.cli import export, verify
from qat.emitters.onnxruntime import metadata, open_session


def test_a_finished_run_is_exported_again_to_the_same_bytes(finished, tmp_path):
    assert export.main([str(finished), "--output", str(tmp_path / "new" / "model.onnx")]) == 0
    assert (tmp_path / "new" / "model.onnx").read_bytes() == (finished / "integer" / "model.onnx").read_bytes()


def test_an_unknown_runtime_is_refused(finished, capsys):
    assert export.main([str(finished), "--runtime", "abacus"]) == 1
    assert "runtime is 'abacus'; choose one of onnxruntime" in capsys.readouterr().err


def test_a_folder_that_is_no_run_is_refused(tmp_path, capsys):
    assert export.main([str(tmp_path)]) == 1
    assert "has no integer/program.json; give the folder of a run that qat-train finished" in capsys.readouterr().err


@pytest.mark.parametrize("output", [".", "train.log/model.onnx"])
def test_a_path_that_cannot_be_written_is_one_sentence(finished, tmp_path, capsys, output):
    shutil.copytree(finished, tmp_path / "run", symlinks=True)
    (tmp_path / "run" / "train.log").touch()
    assert export.main([str(tmp_path / "run"), "--output", str(tmp_path / "run" / output)]) == 1
    captured = capsys.readouterr()
    assert "cannot be written" in captured.err and captured.err.count("\n") == 1


def test_a_damaged_program_leaves_the_file_that_was_there(finished, tmp_path, capsys):
    shutil.copytree(finished, tmp_path / "run", symlinks=True)
    (tmp_path / "run" / "integer" / "program.safetensors").write_bytes(b"")
    assert export.main([str(tmp_path / "run")]) == 1
    assert "export both again" in capsys.readouterr().err
    before = (finished / "integer" / "model.onnx").read_bytes()
    assert (tmp_path / "run" / "integer" / "model.onnx").read_bytes() == before


def test_an_unknown_choice_of_nonlinear_operations_is_refused(finished, capsys):
    assert export.main([str(finished), "--nonlinear", "float"]) == 1
    assert "nonlinear is 'float'; choose one of integer, float_island" in capsys.readouterr().err


def copied(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run", symlinks=True)
    return tmp_path / "run"


def test_the_input_of_a_run_becomes_raw_pictures_and_real_again(finished, tmp_path, capsys):
    run = copied(finished, tmp_path)
    assert export.main([str(run), "--input", "uint8_image", "--channels-last"]) == 0
    described = metadata(run / "integer" / "model.onnx")["inputs"]["images"]
    assert (described["dtype"], described["largest"], described["layout"]) == ("uint8", 16, "channels_last")
    assert open_session(run / "integer" / "model.onnx").get_inputs()[0].shape == ["batch", 8, 8, 1]
    assert verify.main([str(run)]) == 0
    assert "equal and integer" in capsys.readouterr().out
    assert export.main([str(run)]) == 0  # as it is
    assert metadata(run / "integer" / "model.onnx")["inputs"]["images"] == described
    assert export.main([str(run), "--input", "real"]) == 0
    for name in ("model.onnx", "program.json"):
        assert (run / "integer" / name).read_bytes() == (finished / "integer" / name).read_bytes()


def test_a_file_elsewhere_leaves_the_run_as_it_is(finished, tmp_path):
    run = copied(finished, tmp_path)
    assert export.main([str(run), "--input", "uint8_image", "--output", str(tmp_path / "picture.onnx")]) == 0
    assert metadata(tmp_path / "picture.onnx")["inputs"]["images"]["dtype"] == "uint8"
    for name in ("model.onnx", "program.json"):
        assert (run / "integer" / name).read_bytes() == (finished / "integer" / name).read_bytes()


def test_the_names_of_classes_are_in_the_file(finished, tmp_path):
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    (tmp_path / "labels.txt").write_text("\n".join(names))
    arguments = ["--labels", str(tmp_path / "labels.txt"), "--output", str(tmp_path / "model.onnx")]
    assert export.main([str(finished), *arguments]) == 0
    assert metadata(tmp_path / "model.onnx")["labels"] == names
