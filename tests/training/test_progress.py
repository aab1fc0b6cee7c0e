"""Lightning's counters in the schedule's terms."""

from types import SimpleNamespace

import pytest

import qat
from qat.training.progress import is_last_batch, progress_of


def trainer(**settings):
    defaults = {
        "num_training_batches": 4, "current_epoch": 2, "global_step": 5, "max_epochs": 10, "max_steps": -1,
        "accumulate_grad_batches": 2, "lightning_module": SimpleNamespace(automatic_optimization=True),
        "fit_loop": SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=SimpleNamespace(is_last_batch=False))),
    }  # fmt: skip
    return SimpleNamespace(**{**defaults, **settings})


def test_a_batch_of_a_run_of_known_length():
    assert progress_of(trainer(), 3) == qat.Progress(2, 5, 10, None, 0.75, 4, 2)
    assert progress_of(trainer(max_epochs=-1, max_steps=30)) == qat.Progress(2, 5, None, 30, 0.0, 4, 2)


@pytest.mark.parametrize("batches", [float("inf"), 0])
def test_what_cannot_be_known_is_none(batches):
    manual = SimpleNamespace(automatic_optimization=False)
    unknown = trainer(num_training_batches=batches, max_epochs=None, lightning_module=manual)
    assert progress_of(unknown, 3) == qat.Progress(2, 5, None, None, 0.0, None, None)


def test_the_last_batch_is_that_of_the_epoch_the_stream_or_the_run():
    assert [is_last_batch(trainer(), index) for index in range(4)] == [False, False, False, True]
    ends = SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=SimpleNamespace(is_last_batch=True)))
    assert is_last_batch(trainer(num_training_batches=float("inf"), fit_loop=ends), 7)
    assert [is_last_batch(trainer(max_steps=steps), 0) for steps in (6, 7)] == [True, False]
