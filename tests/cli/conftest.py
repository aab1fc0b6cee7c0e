"""qat-train as the tests of the commands start it, and a finished run for those that look at one."""

import contextlib
import io
import sys
from typing import NamedTuple

import pytest
import torch
from pages_without_pictures import pages_without_pictures, pictures  # noqa: F401

from qat.cli import train

# Two epochs of four batches, final in the second one.
QUICK = (
    "trainer.accelerator=cpu",
    "trainer.max_epochs=2",
    "trainer.enable_progress_bar=false",
    "trainer.log_every_n_steps=1",
    "data.limit=128",
    "data.batch_size=32",
    "model.network.width=4",
)


class Result(NamedTuple):
    """What a command left: its exit code and what it printed."""

    returncode: int
    stdout: str
    stderr: str


def _qat_train(folder, *arguments) -> Result:
    given = {argument.partition("=")[0] for argument in arguments}
    quick = [setting for setting in QUICK if setting.partition("=")[0] not in given]
    logging = ["hydra/job_logging=none", "hydra/hydra_logging=none"]
    stdout, stderr, threads = io.StringIO(), io.StringIO(), torch.get_num_threads()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
    ):
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["qat-train", *arguments, *logging, *quick])
        try:
            code = train.main()
        finally:
            torch.set_num_threads(threads)
    return Result(code, stdout.getvalue(), stderr.getvalue())


@pytest.fixture(scope="session")
def quick() -> tuple[str, ...]:
    """Overrides with which a run takes a second."""
    return QUICK


@pytest.fixture(scope="session")
def qat_train():
    """Runs the command in a folder, in this process, which spares the imports."""
    return _qat_train


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The folder of a finished run; not to be written to."""
    folder = tmp_path_factory.mktemp("train")
    result = _qat_train(folder, "hydra.run.dir=run")
    assert result.returncode == 0, result.stderr
    assert "operations on floats: 0" in result.stdout
    return folder / "run"
