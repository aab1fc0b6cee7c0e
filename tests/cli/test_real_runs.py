"""Runs whose files are not integer, from training to the table of several ways."""

import json

import pytest

from qat.cli import export, report, verify


@pytest.fixture(scope="module")
def runs(qat_train, tmp_path_factory):
    """One run of each way, in a folder each."""
    folder = tmp_path_factory.mktemp("ways")
    for recipe in ("digits_dynamic", "digits_weight_only", "digits_fp16", "digits_ptq"):
        result = qat_train(folder, "-cn", recipe, f"hydra.run.dir={recipe}")
        assert result.returncode == 0, result.stderr
        if recipe != "digits_ptq":
            assert "not integer" in result.stdout
            assert "integer file:" not in result.stdout
    return folder


@pytest.mark.parametrize("recipe", ["digits_dynamic", "digits_weight_only", "digits_fp16"])
def test_a_run_leaves_a_program_that_is_no_integer_one_and_no_certificate(recipe, runs):
    folder = runs / recipe / "integer"
    names = {path.name for path in folder.iterdir()}
    assert {"model.onnx", "real_program.json", "report.json", "report.html"} <= names
    assert not {"program.json", "certificate.json"} & names
    content = json.loads((folder / "report.json").read_text())
    assert (content["ok"], content["as_exported"]) == (False, True)
    assert content["float_ops"]
    assert set(content["metrics"]) == {"float", "fake_quant", "exported"}


@pytest.mark.parametrize("recipe", ["digits_dynamic", "digits_fp16"])
def test_qat_verify_looks_at_every_node_again(recipe, runs, capsys):
    assert verify.main([str(runs / recipe)]) == 0
    assert "NOT INTEGER" in capsys.readouterr().out


def test_qat_verify_finds_weights_of_another_run(runs, capsys):
    path = runs / "digits_weight_only" / "integer" / "model.onnx"
    whole = path.read_bytes()
    path.write_bytes((runs / "digits_fp16" / "integer" / "model.onnx").read_bytes())
    try:
        assert verify.main([str(runs / "digits_weight_only")]) == 1
    finally:
        path.write_bytes(whole)
    assert "has no codes of" in capsys.readouterr().err


def test_qat_export_writes_the_same_file_again_for_the_one_runtime_that_runs_it(runs, capsys, tmp_path):
    path = runs / "digits_weight_only" / "integer" / "model.onnx"
    before = path.read_bytes()
    assert export.main([str(runs / "digits_weight_only")]) == 0
    assert path.read_bytes() == before
    assert export.main([str(runs / "digits_weight_only"), "--runtime", "c", "--output", str(tmp_path / "model.c")]) == 1
    assert "activations are float, and c runs integer files only" in capsys.readouterr().err


def test_qat_report_prints_what_each_way_costs_in_one_table(runs, capsys):
    recipes = ("digits_fp16", "digits_dynamic", "digits_weight_only", "digits_ptq")
    assert report.main([str(runs / recipe) for recipe in recipes]) == 0
    lines = capsys.readouterr().out.splitlines()
    ways = {"fp16": "fp16", "dynamic": "dynamic", "weight-only": "weight", "integer": "ptq"}
    for way, recipe in ways.items():
        assert any(way in line and recipe in line for line in lines), (way, lines)
    assert "accuracy" in "".join(lines)


def test_qat_report_writes_the_page_of_one_run(runs, capsys):
    assert report.main([str(runs / "digits_dynamic")]) == 0
    assert "not integer (dynamic), as the program" in " ".join(capsys.readouterr().out.split())
    assert "not integer: dynamic" in (runs / "digits_dynamic" / "integer" / "report.html").read_text()


def test_qat_report_gathers_a_folder_of_ways(runs, capsys):
    assert report.main([str(runs)]) == 0
    printed = capsys.readouterr().out
    assert all(way in printed for way in ("dynamic", "weight-only", "fp16"))
    table = (runs / "sweep.csv").read_text()
    assert "digits_fp16,fp16,not integer" in table
    assert "digits_ptq,static,verified" in table


def test_raw_pictures_are_refused_before_training(qat_train, tmp_path):
    result = qat_train(tmp_path, "-cn", "digits_dynamic", "export.input=uint8_image")
    assert result.returncode == 1
    assert "needs an integer input, but quant.activations is 'dynamic'" in result.stderr


def test_other_runtimes_are_refused_before_training(qat_train, tmp_path):
    result = qat_train(tmp_path, "-cn", "digits_dynamic", "export.runtime=c")
    assert result.returncode == 1
    assert "runs integer files only" in result.stderr
