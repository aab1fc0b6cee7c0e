"""One callback in several runs, runs that fail, and callbacks that replace or average the weights."""

import json

import pytest
import pytorch_lightning
import torch
from torch.utils.data import DataLoader, IterableDataset

import qat
from qat.errors import ObservationError
from qat.inject.handle import handle_of

SCHEDULE = qat.Schedule(start=1, freeze_observers=2, freeze_batch_norm=3)


def epochs_of(callback):
    return [entry["epoch"] for entry in callback.history.entries]


def test_a_second_fit_of_the_same_module_begins_its_history_again(make_trainer, plain_module, images, tmp_path):
    callback = qat.QATCallback("w4a4", SCHEDULE, target=None)
    module = plain_module()
    make_trainer(callback).fit(module, images, images)
    first = callback.handle
    make_trainer(callback).fit(module, images, images)
    assert callback.handle is first
    assert epochs_of(callback) == [0, 1, 2, 3, 4]


def test_a_second_fit_after_remove_prepares_again(make_trainer, plain_module, images):
    callback = qat.QATCallback("w4a4", SCHEDULE, target=None)
    module = plain_module()
    make_trainer(callback).fit(module, images, images)
    callback.handle.remove()
    first = callback.handle
    make_trainer(callback).fit(module, images, images)
    assert callback.handle is not first
    assert handle_of(module.network) is callback.handle
    assert callback.handle.state.final


def test_a_second_fit_of_another_module_is_that_of_a_fresh_callback(make_trainer, plain_module, images):
    callback = qat.QATCallback("w4a4", SCHEDULE, target=None)
    make_trainer(callback).fit(plain_module(), images, images)
    reused, fresh = plain_module(seed=1), plain_module(seed=1)
    make_trainer(callback).fit(reused, images, images)
    other = qat.QATCallback("w4a4", SCHEDULE, target=None)
    make_trainer(other).fit(fresh, images, images)
    assert callback.handle.module is reused.network
    assert all(torch.equal(*pair) for pair in zip(reused.parameters(), fresh.parameters(), strict=True))
    assert epochs_of(callback) == epochs_of(other)


def test_more_epochs_with_the_same_trainer_go_on(make_trainer, plain_module, images):
    callback = qat.QATCallback("w4a4", SCHEDULE, target=None)
    module = plain_module()
    trainer = make_trainer(callback)
    trainer.fit(module, images, images)
    trainer.fit_loop.max_epochs = 7
    trainer.fit(module, images, images)
    assert epochs_of(callback) == list(range(7))


def test_a_run_that_fails_leaves_trainer_and_module_as_they_were(make_trainer, plain_module, images):
    broken = [list(tensor) for tensor in images.dataset.tensors]
    broken[0][9] = torch.full((1, 6, 6), float("nan"))
    loader = DataLoader(list(zip(*broken, strict=True)), 8)
    callback = qat.QATCallback("w4a4", qat.Schedule(start=0, freeze_observers=2, freeze_batch_norm=3), target=None)
    monitored = pytorch_lightning.callbacks.ModelCheckpoint(monitor="val_loss")
    module = plain_module()
    with pytest.raises(ObservationError, match="input"):
        make_trainer(callback, monitored, enable_checkpointing=True).fit(module, loader, images)
    assert "on_load_checkpoint" not in module.__dict__
    assert "_save_topk_checkpoint" not in monitored.__dict__
    make_trainer(callback).fit(module, images, images)
    assert callback.handle.state.final


class Stream(IterableDataset):
    """A stream has no length; the loader's `len` raises."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __iter__(self):
        return iter(self.dataset)


def test_a_stream_of_unknown_length_is_exported(make_trainer, plain_module, images, tmp_path):
    callback = qat.QATCallback("w8a8", SCHEDULE, export_dir=tmp_path / "out")
    stream = DataLoader(Stream(images.dataset), 8)
    make_trainer(callback).fit(plain_module(), stream, stream)
    assert callback.report.ok


def test_a_diverged_metric_is_exported_as_null(make_trainer, plain_module, images, tmp_path, pictures):
    class Diverged(plain_module.kind):
        def validation_step(self, batch, batch_idx):
            self.log("val_loss", torch.tensor(float("nan")))

    callback = qat.QATCallback("w8a8", SCHEDULE, export_dir=tmp_path / "out")
    make_trainer(callback).fit(plain_module(kind=Diverged), images, images)
    epochs = json.loads((tmp_path / "out" / "history.json").read_text())["epochs"]
    assert [entry["metrics"]["val_loss"] for entry in epochs] == [None] * 5


def test_a_short_last_batch_and_a_dead_channel(make_trainer, plain_module, images, tmp_path):
    module = plain_module()
    with torch.no_grad():
        module.network[0].weight[1] = 0.0
        module.network[1].weight[1] = 0.0
        module.network[1].bias[1] = 0.0
    callback = qat.QATCallback("w4a4", SCHEDULE, export_dir=tmp_path / "out")
    odd = DataLoader(torch.utils.data.Subset(images.dataset, range(19)), 8)
    make_trainer(callback).fit(module, odd, odd)
    assert callback.report.ok


@pytest.mark.parametrize("kind", ["swa", "ema"])
def test_averaged_weights_are_exported(kind, make_trainer, plain_module, images, tmp_path):
    callbacks = pytorch_lightning.callbacks
    averaging = (
        callbacks.StochasticWeightAveraging(swa_lrs=0.01, swa_epoch_start=3)
        if kind == "swa"
        else callbacks.EMAWeightAveraging(decay=0.9)
    )
    callback = qat.QATCallback("w8a8", SCHEDULE, export_dir=tmp_path / "out")
    module = plain_module()
    make_trainer(callback, averaging).fit(module, images, images)
    assert callback.report.ok
    inputs = images.dataset.tensors[0][:4]
    module.eval()
    assert torch.equal(module.network(inputs), callback.program(inputs))


def test_fast_dev_run_runs(make_trainer, plain_module, images):
    callback = qat.QATCallback("w4a4", target=None)
    with pytest.warns(UserWarning, match="the run ended in phase 'float'"):
        make_trainer(callback, fast_dev_run=True).fit(plain_module(), images, images)


def test_delivery_draws_no_random_numbers(make_trainer, plain_module, images, tmp_path):
    class Drawn(pytorch_lightning.Callback):
        """The random state when training ended, and when the run did."""

        def on_train_end(self, trainer, pl_module):
            self.before = torch.get_rng_state()

    drawn = Drawn()
    callback = qat.QATCallback("w8a8", SCHEDULE, export_dir=tmp_path / "out")
    make_trainer(drawn, callback).fit(plain_module(), images, images)
    assert torch.equal(drawn.before, torch.get_rng_state())


def test_rich_progress_bar_shows_the_phase(make_trainer, plain_module, images):
    class Shown(pytorch_lightning.callbacks.RichProgressBar):
        """Collects what the bar is given to show."""

        words = set()

        def get_metrics(self, trainer, pl_module):
            return super().get_metrics(trainer, pl_module)

        def _update_metrics(self, trainer, pl_module, *args, **kwargs):
            self.words.add(self.get_metrics(trainer, pl_module)["qat"])
            super()._update_metrics(trainer, pl_module, *args, **kwargs)

    bar = Shown(refresh_rate=1)
    callback = qat.QATCallback("w4a4", SCHEDULE, target=None)
    make_trainer(callback, bar, enable_progress_bar=True).fit(plain_module(), images, images)
    assert {"float", "quantize w4a4", "frozen w4a4", "final w4a4"} <= bar.words
