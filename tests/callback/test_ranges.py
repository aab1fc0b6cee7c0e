"""Ranges over a whole run: which follow what grows, and which are frozen."""

import pytest
import pytorch_lightning
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import qat


class Growing(pytorch_lightning.LightningModule):
    """A regression whose targets lie far outside of what the network gives at first: weights and outputs grow."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))

    def training_step(self, batch, batch_idx):
        return F.mse_loss(self.network(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.05)


@pytest.fixture
def regression():
    inputs = torch.rand(64, 4, generator=torch.Generator().manual_seed(0))
    return DataLoader(TensorDataset(inputs, 40.0 * inputs.sum(1, keepdim=True)), 16)


def test_the_range_of_a_weight_is_that_of_the_weights_to_the_end(make_trainer, regression):
    callback = qat.QATCallback("w8a8", qat.Schedule(start=1, freeze_observers=2, freeze_batch_norm=3), target=None)
    module = Growing()
    before = []

    class AtTheFreeze(pytorch_lightning.Callback):
        """Copies the weights with which every batch begins."""

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            before.append(pl_module.network[2].weight.detach().clone())

    make_trainer(callback, AtTheFreeze(), max_epochs=6).fit(module, regression)
    quantizer = callback.handle.quantizers["2.weight"]
    assert before[-1].abs().max() > 1.2 * before[8].abs().max()  # epoch 2 begins with batch 8
    assert quantizer.scale_in_force().item() == pytest.approx(before[-1].abs().max().item() / 127)
    assert callback.history.entries[-1]["layers"]["2.weight"]["clip_share"] == 0.0


def test_outputs_that_outgrew_a_range_frozen_early_are_told_with_the_remedy(make_trainer, regression, capsys):
    early = qat.Schedule(start=1, freeze_observers=2, freeze_batch_norm=3)
    make_trainer(qat.QATCallback("w8a8", early, target=None), max_epochs=8).fit(Growing(), regression)
    assert "of the values of 2.output lie beyond its range and are clipped; freeze observers later" in (
        capsys.readouterr().out
    )
    late = qat.Schedule(start=1, freeze_observers="31 steps", freeze_batch_norm="31 steps")  # of 32
    extremes = qat.QuantConfig(activation=qat.QuantSpec(signed=False, symmetric=False, observer="minmax"))
    make_trainer(qat.QATCallback(extremes, late, target=None), max_epochs=8).fit(Growing(), regression)
    assert "are clipped" not in capsys.readouterr().out
