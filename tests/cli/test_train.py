"""qat-train as a user starts it, and what the other commands make of the runs it leaves."""

import contextlib
import errno
import io
import json
import shutil
import signal
import subprocess
import sys
import time
from typing import NamedTuple

import pytest
import torch

from qat.cli import export, train, verify
from qat.training import delivery

pytestmark = pytest.mark.filterwarnings(
    # Shown to the user of resume= as well: the checkpoints of the new run go into its own folder.
    "ignore:The dirpath has changed:UserWarning",
    # Said twice: as the callback's warning and, in the end, as the sentence the tests look for.
    "ignore:the run ended:UserWarning",
)

# Two epochs of four batches, final in the second one.
QUICK = [
    "trainer.accelerator=cpu",
    "trainer.max_epochs=2",
    "trainer.enable_progress_bar=false",
    "trainer.log_every_n_steps=1",
    "data.limit=128",
    "data.batch_size=32",
    "model.network.width=4",
]
#: Read by the commands that look at a run.
FILES = {"history.json", "model.onnx", "program.json", "program.safetensors", "report.html", "report.json"}


class Result(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


def qat_train(folder, *arguments):
    """Run the command in `folder`, in this process, which spares the imports."""
    logging = ["hydra/job_logging=none", "hydra/hydra_logging=none"]
    stdout, stderr, threads = io.StringIO(), io.StringIO(), torch.get_num_threads()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
    ):
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["qat-train", *arguments, *logging, *QUICK])
        try:
            code = train.main()
        finally:
            torch.set_num_threads(threads)
    return Result(code, stdout.getvalue(), stderr.getvalue())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("train")
    result = qat_train(folder, "hydra.run.dir=run")
    assert result.returncode == 0, result.stderr
    assert "operations on floats: 0" in result.stdout
    return folder / "run"


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


def test_what_each_layer_loses_is_in_the_report_under_the_names_of_the_history(finished):
    report = json.loads((finished / "integer" / "report.json").read_text())
    rows = {layer["name"]: layer for layer in report["layers"]}
    for name in ("conv1", "conv2", "conv3", "linear"):
        assert rows[name]["sqnr_db"] > 5 and rows[name]["activation_sqnr_db"] > 5
        assert 0 <= rows[name]["clip_share"] < 1
    assert rows["add"]["activation_sqnr_db"] > 5 and "sqnr_db" not in rows["add"]
    epochs = json.loads((finished / "integer" / "history.json").read_text())["epochs"]
    assert {"conv1.weight", "conv1.output", "add.output", "linear.output"} <= set(epochs[-1]["layers"])


def test_equal_runs_leave_equal_files(finished):
    again = qat_train(finished.parent, "hydra.run.dir=again")
    assert again.returncode == 0, again.stderr
    for name in ("model.onnx", "program.json", "program.safetensors"):
        ours, theirs = (finished.parent / run / "integer" / name for run in ("run", "again"))
        assert ours.read_bytes() == theirs.read_bytes(), name


def test_a_finished_run_is_verified_again(finished, capsys):
    assert verify.main([str(finished)]) == 0
    assert "verified on 128 samples: equal" in capsys.readouterr().out


def test_a_file_of_another_program_does_not_pass(finished, tmp_path, capsys):
    result = qat_train(tmp_path, "hydra.run.dir=other", "seed=1")
    assert result.returncode == 0, result.stderr
    shutil.copytree(finished, tmp_path / "mixed")
    shutil.copy(tmp_path / "other" / "integer" / "model.onnx", tmp_path / "mixed" / "integer" / "model.onnx")
    assert verify.main([str(tmp_path / "mixed")]) == 1
    assert "is not the integer program beside it" in capsys.readouterr().err


def test_a_finished_run_is_exported_again_to_the_same_bytes(finished, tmp_path):
    assert export.main([str(finished), "--output", str(tmp_path / "new" / "model.onnx")]) == 0
    assert (tmp_path / "new" / "model.onnx").read_bytes() == (finished / "integer" / "model.onnx").read_bytes()


@pytest.mark.parametrize(
    "command, arguments, sentence",
    [
        (export, [], "has no integer/program.json"),
        (verify, [], "is not the folder of a run"),
    ],
)
def test_a_folder_that_is_no_run_is_refused(command, arguments, sentence, tmp_path, capsys):
    assert command.main([str(tmp_path), *arguments]) == 1
    assert sentence in capsys.readouterr().err


def test_an_unknown_runtime_is_refused(finished, capsys):
    assert export.main([str(finished), "--runtime", "abacus"]) == 1
    assert "runtime is 'abacus'; choose one of onnxruntime" in capsys.readouterr().err


def test_a_run_whose_file_is_gone_is_told_so(finished, tmp_path, capsys):
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "integer" / "model.onnx").unlink()
    assert verify.main([str(tmp_path / "run")]) == 1
    assert "model.onnx' does not exist; export it with qat-export" in capsys.readouterr().err


def test_a_mistake_is_one_sentence_without_a_traceback(tmp_path):
    command = [sys.executable, "-m", "qat.cli.train", "hydra.run.dir=run", "quant.weight.bits=9"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith("bits is 9; a width is one of")
    assert "Traceback" not in result.stderr
    assert json.loads((tmp_path / "run" / "failed.json").read_text())["error"].startswith("bits is 9")


def test_a_failing_point_does_not_end_a_sweep(tmp_path):
    result = qat_train(
        tmp_path, "-m", "hydra.sweep.dir=sweep", "hydra.sweep.subdir=${hydra.job.num}", "quant.weight.bits=9,4"
    )
    assert result.returncode == 1
    assert "quant.weight.bits=9" in result.stderr and "Traceback" not in result.stderr
    assert (tmp_path / "sweep" / "0" / "failed.json").exists()
    assert (tmp_path / "sweep" / "1" / "integer" / "report.json").exists()


def test_an_error_that_nobody_foresaw_ends_its_point_alone(tmp_path, monkeypatch):
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


def test_a_disk_that_fills_up_while_exporting_costs_nothing_that_was_trained(tmp_path, monkeypatch):
    def full(*arguments, **settings):
        raise OSError(errno.ENOSPC, "No space left on device", "model.onnx")

    monkeypatch.setattr(delivery, "export", full)
    result = qat_train(tmp_path, "hydra.run.dir=run")
    assert result.returncode == 1
    trained = tmp_path / "run" / "integer" / "trained.ckpt"
    assert result.stderr.splitlines()[-1] == (
        f"[Errno 28] No space left on device: 'model.onnx'; what was trained is kept in {trained}."
    )
    assert "Traceback" not in result.stderr
    assert "network.conv1.weight" in torch.load(trained, weights_only=True)["state_dict"]


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_says_how_to_go_on(kind, tmp_path):
    arguments = ["hydra.run.dir=run", *QUICK, "trainer.max_epochs=100000", "schedule=default"]
    with subprocess.Popen(
        [sys.executable, "-m", "qat.cli.train", *arguments],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        last = tmp_path / "run" / "checkpoints" / "last.ckpt"
        while not last.exists():
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(kind)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.splitlines()[-1].startswith("interrupted; ")
    assert f"resume={last}" in errors and "Traceback" not in errors
    assert json.loads((tmp_path / "run" / "failed.json").read_text()) == {"error": "interrupted"}


def test_points_of_a_sweep_that_share_a_folder_are_refused(tmp_path):
    result = qat_train(tmp_path, "-m", "hydra.sweep.dir=sweep", "hydra.sweep.subdir=one", "quant.weight.bits=9,9.5")
    assert result.returncode == 1
    assert "two points of the sweep share the folder 'one'" in result.stderr


def test_quantization_after_training_leaves_the_same_files(tmp_path):
    result = qat_train(tmp_path, "-cn", "digits_ptq", "hydra.run.dir=run", "post_training.batches=2")
    assert result.returncode == 0, result.stderr
    report = json.loads((tmp_path / "run" / "integer" / "report.json").read_text())
    assert report["recipe"] == "digits_ptq" and set(report["metrics"]) == {"float", "fake_quant", "integer"}
    assert all(layer["activation_sqnr_db"] > 5 for layer in report["layers"] if layer["weights"])
    assert report["mismatches"]["onnxruntime"]["differing"] == 0


def test_a_run_that_ends_early_exports_nothing_and_resumes_from_its_checkpoint(tmp_path):
    early = qat_train(tmp_path, "hydra.run.dir=early", "+trainer.max_time={seconds: 0}", "+trainer.min_epochs=1")
    assert early.returncode == 1
    assert "before quantization was final, so nothing was exported" in early.stderr.splitlines()[-1]
    assert not (tmp_path / "early" / "integer" / "model.onnx").exists()
    resume = "resume='early/checkpoints/epoch=0.ckpt'"
    resumed = qat_train(tmp_path, "hydra.run.dir=resumed", resume, "+trainer.max_time={hours: 1}")
    assert resumed.returncode == 0, resumed.stderr
    assert (tmp_path / "resumed" / "integer" / "model.onnx").exists()


def test_a_finished_run_has_nothing_to_resume(finished, tmp_path):
    checkpoint = next((finished / "checkpoints").glob("epoch=*.ckpt"))
    result = qat_train(tmp_path, "hydra.run.dir=run", f"resume='{checkpoint}'")
    assert result.returncode == 1
    assert "had reached trainer.max_epochs=2 already" in result.stderr.splitlines()[-1]
