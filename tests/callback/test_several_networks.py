"""Several networks of one module, each with its callback; and a network whose inputs are no part of a batch."""

import pytest
import pytorch_lightning
import torch
from torch import nn
from torch.nn import functional as F

import qat
from qat.errors import ConfigurationError
from qat.inject.handle import handle_of

#: Lightning names the callbacks that wrote a checkpoint and are not there any more.
pytestmark = pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")

SCHEDULE = qat.Schedule(start=1, freeze_observers=2, freeze_batch_norm=3)


class Pair(pytorch_lightning.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 3))
        self.second = nn.Sequential(nn.Flatten(), nn.Linear(36, 4), nn.ReLU(), nn.Linear(4, 3))

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.first(batch[0]) + self.second(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


class Rows(pytorch_lightning.loggers.logger.Logger):
    """Keeps the names that are logged."""

    name, version = "rows", 0

    def __init__(self):
        super().__init__()
        self.names = set()

    def log_metrics(self, metrics, step=None):
        self.names |= set(metrics)

    def log_hyperparams(self, *arguments, **keywords):
        pass


def callbacks_in(folder, **options):
    return [
        qat.QATCallback(quant, SCHEDULE, module=name, export_dir=folder / name, **options)
        for quant, name in (("w4a4", "first"), ("w8a8", "second"))
    ]


def test_each_network_has_its_widths_its_file_and_its_names(make_trainer, images, tmp_path):
    logger, callbacks, module = Rows(), callbacks_in(tmp_path), Pair()
    make_trainer(*callbacks, logger=logger, log_every_n_steps=1).fit(module, images)
    for callback, network in zip(callbacks, (module.first, module.second), strict=True):
        assert handle_of(network) is callback.handle
        assert callback.report.ok
    assert {"qat/first/weight_bits", "qat/second/weight_bits", "qat/first/sqnr_db/3.weight"} <= logger.names


def test_both_resume_exactly(make_trainer, images, tmp_path):
    def files():
        return [(tmp_path / name / "model.onnx").read_bytes() for name in ("first", "second")]

    keep = pytorch_lightning.callbacks.ModelCheckpoint(tmp_path / "kept", "{epoch}", save_top_k=-1)
    make_trainer(*callbacks_in(tmp_path), keep, enable_checkpointing=True).fit(Pair(), images)
    whole = files()
    for epoch in (1, 3):
        path = tmp_path / "kept" / f"epoch={epoch}.ckpt"
        make_trainer(*callbacks_in(tmp_path)).fit(Pair(), images, ckpt_path=path, weights_only=True)
        assert files() == whole


def test_one_folder_for_two_files_is_refused(make_trainer, images):
    callbacks = [qat.QATCallback(module=name) for name in ("first", "second")]
    with pytest.raises(ConfigurationError, match="two QATCallbacks would export to .*give each its own export_dir="):
        make_trainer(*callbacks).fit(Pair(), images)
    simulated = [qat.QATCallback("w4a4", SCHEDULE, None, name) for name in ("first", "second")]
    make_trainer(*simulated).fit(Pair(), images)
    assert all(callback.handle.state.final for callback in simulated)


def test_a_checkpoint_is_found_whether_the_network_was_named_or_not(make_trainer, plain_module, images, tmp_path):
    keep = pytorch_lightning.callbacks.ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)
    unnamed = qat.QATCallback("w4a4", SCHEDULE, target=None)
    make_trainer(unnamed, keep, enable_checkpointing=True).fit(plain_module(), images, images)
    named = qat.QATCallback("w4a4", SCHEDULE, target=None, module="network")
    module = plain_module()
    make_trainer(named).fit(module, images, images, ckpt_path=tmp_path / "epoch=2.ckpt", weights_only=True)
    assert named.history.entries == unnamed.history.entries
    assert all(torch.equal(*pair) for pair in zip(named.handle.parameters(), unnamed.handle.parameters(), strict=True))


class Generator(pytorch_lightning.LightningModule):
    """Makes its inputs in training_step: no batch holds them."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 36))

    def training_step(self, batch, batch_idx):
        noise = torch.linspace(-1, 1, len(batch[0]) * 4).view(-1, 4)
        return F.mse_loss(self.network(noise), batch[0].flatten(1))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_a_network_that_no_batch_feeds_is_verified_on_its_examples(make_trainer, images):
    callback = qat.QATCallback("w4a4", SCHEDULE, example_inputs=torch.linspace(-1, 1, 12).view(3, 4))
    make_trainer(callback).fit(Generator(), images)
    assert callback.report.ok and callback.report.samples == 3


def test_batches_of_several_loaders_are_no_reason_to_lose_the_file(make_trainer, plain_module, images):
    class Combined(plain_module.kind):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch["one"], batch_idx) + super().training_step(batch["two"], batch_idx)

    callback = qat.QATCallback("w4a4", SCHEDULE, example_inputs=images.dataset.tensors[0][:5])
    make_trainer(callback).fit(plain_module(kind=Combined), {"one": images, "two": images}, images)
    assert callback.report.ok


@pytest.mark.parametrize("precision", ["64-true", "bf16-true", "bf16-mixed"])
def test_held_out_inputs_are_of_the_trainers_precision(precision, make_trainer, plain_module, images):
    callback = qat.QATCallback("w4a4", SCHEDULE)
    make_trainer(callback, precision=precision).fit(plain_module(), images, images)
    assert callback.report.ok
