"""Learned scales train beside the user's optimizer, and stop where the schedule says so."""

import itertools

import pytest
import pytorch_lightning
import torch
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, Subset

import qat


class Trace(pytorch_lightning.Callback):
    """Copies the learned scales of a `QATCallback` behind every batch."""

    def __init__(self, callback):
        self.callback = callback
        self.scales = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        parameters = self.callback.handle.parameters()
        self.scales.append(torch.cat([parameter.detach().reshape(-1).clone() for parameter in parameters]))

    def moved(self):
        return [not torch.equal(before, after) for before, after in itertools.pairwise(self.scales)]


def from_the_start(**points):
    return qat.Schedule(**{"start": 0, "freeze_observers": 1, "freeze_batch_norm": 3, **points})


def one_cycle(parameters):
    optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
    scheduler = lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=20)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def cosine(parameters):
    optimizer = torch.optim.AdamW(parameters, lr=0.01)
    return [optimizer], [lr_scheduler.CosineAnnealingLR(optimizer, T_max=5)]


@pytest.mark.parametrize("optimizers", [one_cycle, cosine])
@pytest.mark.parametrize(
    "settings", [{}, {"gradient_clip_val": 0.01}, {"precision": "bf16-mixed"}], ids=["plain", "clipped", "bf16"]
)
def test_scales_move_until_they_are_frozen_and_not_by_momentum_after(
    optimizers, settings, make_trainer, plain_module, images
):
    callback = qat.QATCallback("w4a4", from_the_start(), target=None)
    trace = Trace(callback)
    module = plain_module(optimizers)
    make_trainer(callback, trace, **settings).fit(module, images, images)
    # 5 epochs of 4 batches; entry i compares batches i and i + 1; frozen from epoch 3, batch 12 on
    assert all(trace.moved()[:11])
    assert not any(trace.moved()[11:])
    learned = {id(parameter) for parameter in callback.handle.parameters()}
    assert learned.isdisjoint(id(parameter) for parameter in module.parameters())


def test_scales_step_once_per_accumulated_update(make_trainer, plain_module, images):
    callback = qat.QATCallback("w4a4", from_the_start(freeze_batch_norm=2), target=None)
    trace = Trace(callback)
    make_trainer(callback, trace, accumulate_grad_batches=3, max_epochs=3).fit(plain_module(), images, images)
    # updates of an epoch of four batches: behind the third, and behind the last; the third epoch is frozen
    assert trace.moved() == [False, True, True, False, False, True, True, False, False, False, False]
    steps = [entry["step"].item() for entry in callback.state_dict()["optimizer"]["state"].values()]
    assert set(steps) == {4.0}


def test_accumulated_gradients_are_the_mean_over_batches(make_trainer, plain_module, images):
    class Seen(qat.QATCallback):
        """Keeps the gradients of the first update."""

        gradients = None

        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            if self.gradients is None:
                self.gradients = {name: parameter.grad.clone() for name, parameter in self.handle.named_parameters()}
            super().on_before_optimizer_step(trainer, pl_module, optimizer)

    found = []
    for accumulate in (1, 2):
        schedule = qat.Schedule(start=0, freeze_observers=1, freeze_batch_norm=0, freeze_scales=1)
        callback = Seen("w4a4", schedule, target=None)
        same = DataLoader(Subset(images.dataset, [*range(8)] * accumulate), 8)  # one batch, once or twice
        make_trainer(callback, accumulate_grad_batches=accumulate, max_epochs=2).fit(plain_module(), same, same)
        found.append(callback.gradients)
    assert found[0].keys() == found[1].keys()
    assert all(torch.allclose(found[0][name], found[1][name], rtol=1e-3, atol=1e-6) for name in found[0])


def test_a_skipped_update_leaves_no_gradient_behind(make_trainer, plain_module, images):
    class Skipping(plain_module.kind):
        """Throws away the gradients of every second batch."""

        def __init__(self, optimizers=None):
            super().__init__(optimizers)
            self.automatic_optimization = False

        def training_step(self, batch, batch_idx):
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(super().training_step(batch, batch_idx) * (float("nan") if batch_idx % 2 == 0 else 1))
            if batch_idx % 2:
                optimizer.step()

    callback = qat.QATCallback("w4a4", from_the_start(), target=None)
    make_trainer(callback).fit(plain_module(kind=Skipping), images, images)
    assert all(bool(torch.isfinite(parameter).all()) for parameter in callback.handle.parameters())


def test_no_optimizer_trains_the_network(make_trainer, plain_module, images):
    class Judged(plain_module.kind):
        """Trains a scalar beside a network that stays as it is."""

        def __init__(self, optimizers=None):
            super().__init__(optimizers)
            self.temperature = torch.nn.Parameter(torch.ones(()))

        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx) * self.temperature

        def configure_optimizers(self):
            return torch.optim.SGD([self.temperature], lr=0.1)

    callback = qat.QATCallback("w4a4", from_the_start(), target=None)
    trace = Trace(callback)
    make_trainer(callback, trace).fit(plain_module(kind=Judged), images, images)
    assert not any(trace.moved())
    assert callback.history.entries[-1]["learning_rate"] is None
