"""Layers that are called around the network's forward are told, in whichever loop."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import qat
from qat.training.detours import DetourWatch

SCHEDULE = qat.Schedule(start=1, freeze_observers=2, freeze_batch_norm=3)


class Split(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ReLU())
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.features(x))


@pytest.fixture
def split_module(plain_module):
    """Makes a module with a `Split` that goes around its forward in `around`, one of its steps."""

    def make(around):
        class Around(plain_module.kind):
            def __init__(self, optimizers=None):
                super().__init__(optimizers)
                self.network = Split()

            def training_step(self, batch, batch_idx):
                loss = super().training_step(batch, batch_idx)
                return loss + self.network.features(batch[0]).square().mean() if around == "training_step" else loss

            def validation_step(self, batch, batch_idx):
                network = self.network
                logits = network.head(network.features(batch[0])) if around == "validation_step" else network(batch[0])
                self.log("val_loss", F.cross_entropy(logits, batch[1]))

            def test_step(self, batch, batch_idx):
                self.log("test_loss", self.network.head(self.network.features(batch[0])).mean())

        return plain_module(kind=Around)

    return make


@pytest.mark.parametrize(("step", "layers"), [("training_step", "features.1"), ("validation_step", "features.1, head")])
def test_a_step_that_goes_around_the_forward_is_named_with_its_layers(step, layers, make_trainer, split_module, images):
    callback = qat.QATCallback("w4a4", SCHEDULE, target=None)
    with pytest.warns(UserWarning, match=rf"Around\.{step} calls {layers} outside of Split\.forward"):
        make_trainer(callback).fit(split_module(step), images, images)
    assert not any(module._forward_pre_hooks for module in callback.handle.module.modules())


def test_so_is_a_test_step(make_trainer, split_module, images):
    callback, module = qat.QATCallback("w4a4", SCHEDULE, target=None), split_module(None)
    trainer = make_trainer(callback)
    trainer.fit(module, images, images)
    with pytest.warns(UserWarning, match=r"Around\.test_step calls features\.1, head outside"):
        trainer.test(module, images, verbose=False)


def test_the_watch_sees_what_runs_outside_and_only_that():
    network = Split()
    handle = qat.prepare(network, torch.rand(2, 1, 6, 6))
    watch = DetourWatch(handle)
    network(torch.rand(2, 1, 6, 6))
    assert watch.found == []
    network.head(torch.rand(2, 8))
    network.head(torch.rand(2, 8))
    assert watch.stop() == ["head"]
    network.head(torch.rand(2, 8))
    assert watch.stop() == ["head"]
