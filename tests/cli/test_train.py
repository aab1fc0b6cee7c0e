"""qat-train as a user starts it."""

import errno
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from fresh_processes import finish, start

from qat.cli import train
from qat.cli.train import interrupted
from qat.training import delivery

#: What pip installs as `qat-train`.
QAT_TRAIN = "import sys; from qat.cli.train import main; sys.exit(main())"

#: Read by the commands that look at a run.
FILES = {"history.json", "model.onnx", "program.json", "program.safetensors", "report.html", "report.json"}


def test_a_run_leaves_the_verified_file_and_its_report(finished):
    assert {path.name for path in (finished / "integer").iterdir()} >= FILES
    assert not (finished / "failed.json").exists()
    report = json.loads((finished / "integer" / "report.json").read_text())
    assert report["recipe"] == "digits_cnn" and report["split"] == "test"
    assert report["seed"] == 0 and report["epochs"] == 2
    assert report["float_ops"] == []
    assert report["mismatches"]["onnxruntime"]["differing"] == 0
    assert report["mismatches"]["onnxruntime"]["total"] == 128 * 10
    assert set(report["metrics"]) == {"float", "fake_quant", "integer"}
    assert {layer["weight_bits"] for layer in report["layers"] if layer["weights"]} == {4, 8}
    assert str(finished) not in json.dumps(report)


def test_equal_runs_leave_equal_files(finished, qat_train):
    again = qat_train(finished.parent, "hydra.run.dir=again")
    assert again.returncode == 0, again.stderr
    for name in ("model.onnx", "program.json", "program.safetensors"):
        ours, theirs = (finished.parent / run / "integer" / name for run in ("run", "again"))
        assert ours.read_bytes() == theirs.read_bytes(), name


def test_a_mistake_is_one_sentence_without_a_traceback(tmp_path):
    assert finish(start(QAT_TRAIN, "hydra.run.dir=run", "quant.weight.bits=9", folder=tmp_path)) == 1
    errors = (tmp_path / "stderr").read_text()
    assert errors.splitlines()[-1].startswith("bits is 9; a width is one of")
    assert "Traceback" not in errors
    assert json.loads((tmp_path / "run" / "failed.json").read_text())["error"].startswith("bits is 9")


def test_a_failing_point_does_not_end_a_sweep(tmp_path, qat_train):
    result = qat_train(
        tmp_path, "-m", "hydra.sweep.dir=sweep", "hydra.sweep.subdir=${hydra.job.num}", "quant.weight.bits=9,4"
    )
    assert result.returncode == 1
    assert "quant.weight.bits=9" in result.stderr and "Traceback" not in result.stderr
    assert (tmp_path / "sweep" / "0" / "failed.json").exists()
    assert (tmp_path / "sweep" / "1" / "integer" / "report.json").exists()


def test_an_error_that_nobody_foresaw_ends_its_point_alone(tmp_path, monkeypatch, qat_train):
    def fail(run, *arguments, **settings):
        if not run.joinpath("..", "0", "failed.json").exists():
            raise ZeroDivisionError("nobody foresaw it")

    monkeypatch.setattr(train, "run_recipe", lambda config, run_dir, recipe: fail(run_dir))
    result = qat_train(tmp_path, "-m", "hydra.sweep.dir=sweep", "hydra.sweep.subdir=${hydra.job.num}", "seed=1,2")
    assert result.returncode == 1
    assert "Traceback" in result.stderr and "ZeroDivisionError: nobody foresaw it" in result.stderr
    assert result.stderr.splitlines()[-1].endswith(": nobody foresaw it.")
    assert (tmp_path / "sweep" / "0" / "failed.json").exists()
    assert not (tmp_path / "sweep" / "1" / "failed.json").exists()


def test_a_disk_that_fills_up_while_exporting_costs_nothing_that_was_trained(tmp_path, monkeypatch, qat_train):
    def full(*arguments, **settings):
        raise OSError(errno.ENOSPC, "No space left on device", "model.onnx")

    monkeypatch.setattr(delivery, "export_all", full)
    result = qat_train(tmp_path, "hydra.run.dir=run")
    assert result.returncode == 1
    trained = tmp_path / "run" / "integer" / "trained.ckpt"
    assert result.stderr.splitlines()[-1] == (
        f"[Errno 28] No space left on device: 'model.onnx'; what was trained is kept in {trained}."
    )
    assert "Traceback" not in result.stderr
    assert "network.conv1.weight" in torch.load(trained, weights_only=True)["state_dict"]


@pytest.mark.parametrize(
    "folder, added", [("run", "with resume={} added"), ("lr=1,seed=2", "with \"resume='{}'\" added")]
)
def test_what_an_interrupted_run_says_can_be_pasted(folder, added, tmp_path):
    last = tmp_path / folder / "checkpoints" / "last.ckpt"
    last.parent.mkdir(parents=True)
    assert "interrupted before the first checkpoint" in interrupted(tmp_path / folder)
    last.touch()
    assert added.format(last) in interrupted(tmp_path / folder)


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_says_how_to_go_on(kind, tmp_path, quick):
    arguments = ["hydra.run.dir=run", *quick, "trainer.max_epochs=100000", "schedule=default"]
    process = start(QAT_TRAIN, *arguments, folder=tmp_path)
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    while not last.exists():
        assert process.exitcode is None
        time.sleep(0.1)
    os.kill(process.pid, kind)
    assert finish(process) == 1
    errors = (tmp_path / "stderr").read_text()
    assert errors.splitlines()[-1].startswith("interrupted; ")
    assert f"resume={last}" in errors.replace("'", "") and "Traceback" not in errors
    assert json.loads((tmp_path / "run" / "failed.json").read_text()) == {"error": "interrupted"}


def test_points_of_a_sweep_that_share_a_folder_are_refused(tmp_path, qat_train):
    result = qat_train(tmp_path, "-m", "hydra.sweep.dir=sweep", "hydra.sweep.subdir=one", "quant.weight.bits=9,9.5")
    assert result.returncode == 1
    assert "two points of the sweep share the folder 'one'" in result.stderr


def test_help_names_the_parts_that_can_be_exchanged(tmp_path):
    command = [sys.executable, "-m", "qat.cli.train", "--help"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0 and result.stdout.startswith("qat-train [-cn RECIPE]")
    assert "quant: fp16, w2a2, w2a8, w3a3, w4_weight_only, w4a4, w4a8, w8_dynamic, w8a8" in result.stdout
    assert list(tmp_path.iterdir()) == []
