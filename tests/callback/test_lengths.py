"""Runs of every length: too short for the schedule, begun in float, of unknown length."""

import pytest
import pytorch_lightning
import torch
from torch.utils.data import DataLoader, IterableDataset

import qat
from qat.errors import ConfigurationError

#: Lightning names the callbacks that wrote a checkpoint and are not there any more.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Be aware that when using `ckpt_path`", "ignore:Checkpoint directory .* exists and is not empty"
)

ModelCheckpoint = pytorch_lightning.callbacks.ModelCheckpoint


@pytest.mark.parametrize(
    "settings",
    [
        {"max_epochs": 1},
        {"max_epochs": 2, "limit_train_batches": 2},
        {"max_epochs": 1, "limit_train_batches": 3},
        {"max_epochs": -1, "max_steps": 3},
        {"max_epochs": 3, "limit_train_batches": 1},
    ],
    ids=str,
)
@pytest.mark.parametrize("quant", ["w8a8", "w4a4"])
def test_three_batches_are_enough_for_a_file(quant, settings, make_trainer, plain_module, images):
    callback = qat.QATCallback(quant)
    make_trainer(callback, **settings).fit(plain_module(), images, images)
    assert callback.report.ok


@pytest.mark.parametrize("batches", [1, 2])
def test_fewer_end_with_a_sentence_and_say_why_at_the_start(batches, make_trainer, plain_module, images, capsys):
    callback = qat.QATCallback("w8a8")
    with pytest.warns(
        UserWarning, match="before quantization was final, so nothing is exported; train for more epochs"
    ):
        make_trainer(callback, max_epochs=1, limit_train_batches=batches).fit(plain_module(), images, images)
    assert callback.program is None
    printed = capsys.readouterr().out
    assert f"schedule.freeze_batch_norm is 0.6, but the run ends at epoch 1, step {batches}: it is never" in printed


def test_a_run_that_observes_no_batch_is_not_called_final(make_trainer, plain_module, images, capsys):
    callback = qat.QATCallback("w8a8", qat.Schedule(start=0.1, freeze_observers=0.2, freeze_batch_norm=0.3))
    with pytest.warns(UserWarning, match="the run ended without a range for any activation, .* nothing is exported"):
        make_trainer(callback, max_epochs=1).fit(plain_module(), images, images)
    assert callback.program is None
    assert (
        "no batch of a run that ends at epoch 1, step 4 lies between schedule.observe at 0.1" in capsys.readouterr().out
    )


@pytest.fixture
def float_run(make_trainer, plain_module, images, tmp_path):
    """The folder of a float run of four epochs, with its best checkpoint and end.ckpt."""
    best = ModelCheckpoint(tmp_path / "run", "{epoch}", monitor="val_loss")
    trainer = make_trainer(best, enable_checkpointing=True, max_epochs=4)
    trainer.fit(plain_module(), images, images)
    assert best.best_model_path
    trainer.save_checkpoint(tmp_path / "run" / "end.ckpt")
    return tmp_path / "run"


def test_a_float_run_goes_on_quantized_and_its_best_is_not_called_best(
    float_run, make_trainer, plain_module, images, tmp_path
):
    best = ModelCheckpoint(float_run, "{epoch}-qat", monitor="val_loss", save_last=True)
    callback = qat.QATCallback("w2a2", qat.Schedule(start=4, freeze_observers=6, freeze_batch_norm=7))
    trainer = make_trainer(callback, best, enable_checkpointing=True, max_epochs=9)
    trainer.fit(plain_module(), images, images, ckpt_path=float_run / "end.ckpt", weights_only=True)
    assert callback.report.ok
    assert best.best_model_path.endswith("-qat.ckpt")
    assert torch.load(best.best_model_path, weights_only=True)["epoch"] in (7, 8)


def test_a_float_run_that_goes_on_behind_the_observers_is_refused(float_run, make_trainer, plain_module, images):
    with pytest.raises(ConfigurationError, match="trained in float to epoch 4, where the schedule has frozen the obs"):
        make_trainer(qat.QATCallback("w2a2"), max_epochs=8).fit(
            plain_module(), images, images, ckpt_path=float_run / "end.ckpt", weights_only=True
        )


def test_float_weights_in_a_quantized_network_are_told(float_run, make_trainer, plain_module, images):
    callback, module = qat.QATCallback("w4a4", target=None), plain_module()
    trainer = make_trainer(callback)
    trainer.fit(module, images, images)
    with pytest.warns(UserWarning, match=r"the checkpoint holds no quantizers, .* call handle\.remove\(\) before"):
        trainer.test(module, images, ckpt_path=float_run / "end.ckpt", verbose=False, weights_only=True)


class Stream(IterableDataset):
    def __init__(self, dataset):
        self.dataset = dataset

    def __iter__(self):
        return iter(self.dataset)


def test_layers_are_measured_where_the_last_batch_is_known_late_or_lies_within_an_epoch(
    make_trainer, plain_module, images
):
    schedule = qat.Schedule(start=1, freeze_observers=2, freeze_batch_norm=3)
    streamed = qat.QATCallback("w4a4", schedule, target=None)
    make_trainer(streamed).fit(plain_module(), DataLoader(Stream(images.dataset), 8), images)
    assert [bool(entry["layers"]) for entry in streamed.history.entries] == [False, True, True, True, True]
    cut_off = qat.QATCallback("w4a4", target=None)
    make_trainer(cut_off, max_epochs=-1, max_steps=3).fit(plain_module(), images, images)
    (entry,) = cut_off.history.entries
    assert set(entry["layers"]) == set(cut_off.handle.quantizers)
