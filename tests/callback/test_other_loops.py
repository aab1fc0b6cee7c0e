"""Checkpoints in validate, test and predict with fresh objects: quantized as the network was when they were saved."""

import pytest
import pytorch_lightning
import torch

import qat

#: Lightning asks for the callback that wrote the checkpoint, which has nothing to do with how the network runs.
pytestmark = pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")

SCHEDULE = qat.Schedule(start=2, observe=1, freeze_observers=3, freeze_batch_norm=4)
PHASES = ["float", "observe", "quantize", "frozen", "final"]


@pytest.fixture
def every_epoch(make_trainer, plain_module, images, tmp_path):
    """A run with one checkpoint for each phase: (paths, validation losses of the epochs)."""

    class Losses(pytorch_lightning.Callback):
        seen = []

        def on_validation_epoch_end(self, trainer, pl_module):
            self.seen.append(trainer.callback_metrics["val_loss"].item())

    keep = pytorch_lightning.callbacks.ModelCheckpoint(tmp_path / "kept", "{epoch}", save_top_k=-1)
    losses = Losses()
    losses.seen = []
    callback = qat.QATCallback("w4a4", SCHEDULE, target=None)
    make_trainer(callback, keep, losses, enable_checkpointing=True).fit(plain_module(), images, images)
    assert [entry["phase"] for entry in callback.history.entries] == PHASES
    return [tmp_path / "kept" / f"epoch={epoch}.ckpt" for epoch in range(5)], losses.seen


def test_every_phase_validates_as_it_did_while_training(every_epoch, make_trainer, plain_module, images):
    paths, losses = every_epoch
    for path, phase, loss in zip(paths, PHASES, losses, strict=True):
        callback = qat.QATCallback("w4a4", SCHEDULE, target=None)
        trainer = make_trainer(callback)
        (metrics,) = trainer.validate(plain_module(seed=1), images, ckpt_path=path, verbose=False, weights_only=True)
        assert metrics["val_loss"] == loss, phase
        assert callback.handle.state.phase == phase
        assert callback.history.entries[-1]["phase"] == phase


def test_predictions_of_a_checkpoint_are_those_of_the_prepared_module(every_epoch, make_trainer, plain_module, images):
    paths, _ = every_epoch
    module = plain_module(seed=1)
    callback = qat.QATCallback("w4a4", SCHEDULE, target=None)
    predicted = make_trainer(callback).predict(module, images, ckpt_path=paths[-1], weights_only=True)
    program = qat.convert(module.network)
    for (inputs, _), found in zip(images, predicted, strict=True):
        assert torch.equal(program(inputs), found)
    float_module = plain_module(seed=1)
    float_module.load_state_dict(torch.load(paths[-1], weights_only=True)["state_dict"])
    float_module.eval()
    assert not torch.equal(float_module.network(images.dataset.tensors[0][:8]), predicted[0])


def test_load_from_checkpoint_is_strict_and_float(every_epoch, plain_module):
    paths, _ = every_epoch
    module = plain_module.kind.load_from_checkpoint(paths[-1], strict=True, weights_only=True)
    assert "forward" not in module.network.__dict__
    content = torch.load(paths[-1], weights_only=True)
    assert list(content["state_dict"]) == list(plain_module().state_dict())


def test_a_float_checkpoint_is_something_to_start_from(make_trainer, plain_module, images, tmp_path):
    trainer = make_trainer(max_epochs=1)
    trainer.fit(plain_module(), images, images)
    trainer.save_checkpoint(tmp_path / "float.ckpt")
    module = plain_module.kind.load_from_checkpoint(tmp_path / "float.ckpt", weights_only=True)
    callback = qat.QATCallback("w4a4", SCHEDULE, target=None)
    make_trainer(callback).fit(module, images, images)
    assert callback.handle.state.final
    resumed = qat.QATCallback("w4a4", SCHEDULE, target=None)
    make_trainer(resumed).fit(
        plain_module(seed=1), images, images, ckpt_path=tmp_path / "float.ckpt", weights_only=True
    )
    assert resumed.handle.state.final
    assert resumed.history.entries[0]["epoch"] == 1
