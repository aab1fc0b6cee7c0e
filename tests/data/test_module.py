import functools

import pytest
import pytorch_lightning
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from qat.data import DigitsDataModule
from qat.models import Classifier, DigitsCNN
from qat.models.schedulers import warmup_cosine


class SeenBatches(pytorch_lightning.Callback):
    def __init__(self):
        self.sums = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.sums.append((trainer.current_epoch, batch_idx, batch[0].sum().item()))


def run(folder, resume=None):
    """Three epochs of four batches with a checkpoint after each; returns the weights and the batches seen."""
    pytorch_lightning.seed_everything(0, verbose=False)
    model = Classifier(DigitsCNN(width=2), functools.partial(torch.optim.AdamW, lr=1e-2), warmup_cosine)
    seen = SeenBatches()
    trainer = pytorch_lightning.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[seen, ModelCheckpoint(folder, filename="{step}", every_n_train_steps=1, save_top_k=-1)],
    )
    trainer.fit(model, datamodule=DigitsDataModule(limit=100, batch_size=32), ckpt_path=resume)
    return model.network.state_dict(), seen.sums


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, *run(folder)


@pytest.mark.parametrize("step", [1, 4, 6, 11])
def test_a_run_resumed_anywhere_sees_the_same_batches_and_ends_in_the_same_weights(whole_run, tmp_path, step):
    folder, weights, batches = whole_run
    resumed_weights, resumed_batches = run(tmp_path, resume=folder / f"step={step}.ckpt")
    assert resumed_batches == batches[step:]
    for name, weight in weights.items():
        assert torch.equal(resumed_weights[name], weight), name
