import functools

import pytest
import pytorch_lightning
import torch

from qat.data import DigitsDataModule
from qat.models import Classifier, DigitsCNN
from qat.models.schedulers import warmup_cosine


class SeenBatches(pytorch_lightning.Callback):
    """Notes every batch, and saves a checkpoint after it where there is a folder."""

    def __init__(self, folder):
        self.folder, self.sums = folder, []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.sums.append((trainer.current_epoch, batch_idx, batch[0].sum().item()))

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if self.folder is not None:
            trainer.save_checkpoint(self.folder / f"step={trainer.global_step}.ckpt")


def run(folder=None, resume=None):
    """Three epochs of four batches, with a checkpoint in `folder` after each; returns weights and batches seen."""
    pytorch_lightning.seed_everything(0, verbose=False)
    model = Classifier(DigitsCNN(width=2), functools.partial(torch.optim.AdamW, lr=1e-2), warmup_cosine)
    seen = SeenBatches(folder)
    trainer = pytorch_lightning.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        callbacks=[seen],
    )
    trainer.fit(model, datamodule=DigitsDataModule(limit=100, batch_size=32), ckpt_path=resume)
    return model.network.state_dict(), seen.sums


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, *run(folder)


@pytest.mark.parametrize("step", [1, 4, 6, 11])
def test_a_run_resumed_anywhere_sees_the_same_batches_and_ends_in_the_same_weights(whole_run, step):
    folder, weights, batches = whole_run
    resumed_weights, resumed_batches = run(resume=folder / f"step={step}.ckpt")
    assert resumed_batches == batches[step:]
    for name, weight in weights.items():
        assert torch.equal(resumed_weights[name], weight), name
