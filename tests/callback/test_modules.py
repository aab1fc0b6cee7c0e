"""The callback beside LightningModules that were not written for it, with both import names of Lightning."""

import lightning.pytorch
import pytest
import pytorch_lightning
import torch
import torchmetrics
from torch import nn
from torch.nn import functional as F

import qat
from qat.errors import ConfigurationError
from qat.inject.handle import handle_of

PACKAGES = pytest.mark.parametrize("package", [pytorch_lightning, lightning.pytorch], ids=lambda p: p.__name__)


def short_schedule():
    return qat.Schedule(start=1, freeze_observers=2, freeze_batch_norm=3)


def manual_module(package):
    class Manual(package.LightningModule):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False
            self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
            self.accuracy = torchmetrics.classification.MulticlassAccuracy(3)

        def training_step(self, batch, batch_idx):
            optimizer = self.optimizers()
            optimizer.zero_grad()
            logits = self.body(batch[0])
            self.accuracy(logits, batch[1])
            self.manual_backward(F.cross_entropy(logits, batch[1]))
            optimizer.step()

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=0.01)

    return Manual()


def adversarial_module(package):
    class Adversarial(package.LightningModule):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False
            self.generator = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 36), nn.Unflatten(1, (1, 6, 6)))
            self.discriminator = nn.Sequential(nn.Flatten(), nn.Linear(36, 16), nn.ReLU(), nn.Linear(16, 1))

        def training_step(self, batch, batch_idx):
            first, second = self.optimizers()
            noise = torch.linspace(-1, 1, len(batch[0]) * 4).view(-1, 4)
            first.zero_grad()
            self.manual_backward(F.softplus(-self.discriminator(self.generator(noise))).mean())
            first.step()
            second.zero_grad()
            fake = self.generator(noise).detach()
            loss = F.softplus(self.discriminator(fake)) + F.softplus(-self.discriminator(batch[0]))
            self.manual_backward(loss.mean())
            second.step()

        def configure_optimizers(self):
            adam = torch.optim.Adam
            return [adam(self.generator.parameters(), lr=0.01), adam(self.discriminator.parameters(), lr=0.01)]

    return Adversarial()


@PACKAGES
def test_manual_optimization(package, make_trainer, images, tmp_path, pictures):
    module = manual_module(package)
    keys = list(module.state_dict())
    callback = qat.QATCallback("w4a8", short_schedule(), export_dir=tmp_path / "out", module="body")
    make_trainer(callback, package=package).fit(module, images)
    assert callback.handle.state.final
    assert callback.report.float_ops == ()
    assert (tmp_path / "out" / "model.onnx").is_file()
    assert (tmp_path / "out" / "plots" / "weight_histograms.png").is_file() and not (tmp_path / "plots").exists()
    assert list(module.state_dict()) == keys
    assert handle_of(module.accuracy) is None
    assert all(name.startswith(("0.", "2.", "4.", "input.")) for name in callback.handle.quantizers)


@PACKAGES
@pytest.mark.parametrize("network", ["generator", "discriminator"])
def test_two_networks(package, network, make_trainer, images):
    module = adversarial_module(package)
    noise = {"generator": torch.zeros(2, 4), "discriminator": torch.zeros(2, 1, 6, 6)}
    callback = qat.QATCallback(
        "w4a4", short_schedule(), target=None, module=network, example_inputs=noise[network]
    )  # fmt: skip
    make_trainer(callback, package=package).fit(module, images)
    other = {"generator": module.discriminator, "discriminator": module.generator}[network]
    assert callback.handle.module is getattr(module, network)
    assert handle_of(other) is None
    assert callback.handle.state.final


def test_gradients_of_another_optimizers_loss_do_not_reach_the_scales(make_trainer, images):
    class Spy(qat.QATCallback):
        """Notes the gradients that are left in the scales behind every step of either optimizer."""

        seen = []

        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            super().on_before_optimizer_step(trainer, pl_module, optimizer)
            self.seen.append([parameter.grad for parameter in self.handle.parameters()])

    callback = Spy(
        "w4a4",
        qat.Schedule(start=0, freeze_observers=1, freeze_batch_norm=2),
        target=None,
        module="discriminator",
        example_inputs=torch.zeros(2, 1, 6, 6),
    )
    make_trainer(callback, max_epochs=3).fit(adversarial_module(pytorch_lightning), images)
    assert len(callback.seen) == 24
    assert all(gradient is None for gradients in callback.seen for gradient in gradients)


@pytest.mark.filterwarnings("ignore:`training_step` returned `None`")
def test_a_batch_that_trains_nothing_is_no_detour(make_trainer, images, plain_module):
    class Skipping(plain_module.kind):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx) if batch_idx % 2 else None

    callback = qat.QATCallback("w4a4", short_schedule(), target=None)
    make_trainer(callback).fit(plain_module(kind=Skipping), images, images)
    assert callback.handle.state.final


def test_a_criterion_with_parameters_is_not_quantized(make_trainer, images, plain_module):
    class Weighted(plain_module.kind):
        def __init__(self, optimizers=None):
            super().__init__(optimizers)
            self.criterion = nn.Linear(3, 3)

        def forward(self, x):
            return self.network(x)

        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self.criterion(self(batch[0])), batch[1])

    callback = qat.QATCallback(schedule=short_schedule(), target=None)
    # the validation of a plain module calls its network and not its forward
    with pytest.warns(UserWarning, match=r"validation_step calls network\.0, .* outside of Weighted\.forward"):
        make_trainer(callback).fit(plain_module(kind=Weighted), images, images)
    assert not [name for name in callback.handle.quantizers if "criterion" in name]


def test_candidates_are_named_before_the_first_batch(make_trainer, images):
    module = adversarial_module(pytorch_lightning)
    with pytest.raises(ConfigurationError, match=r"one of 'generator', 'discriminator'"):
        make_trainer(qat.QATCallback(target=None)).fit(module, images)
    with pytest.raises(ConfigurationError, match="'critic' is no part of Adversarial"):
        make_trainer(qat.QATCallback(target=None, module="critic")).fit(module, images)
    assert "on_load_checkpoint" not in module.__dict__


def test_a_network_compiled_in_place_trains(make_trainer, images):
    class Compiled(pytorch_lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
            self.body.compile(backend="eager", fullgraph=True)

        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self.body(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    callback = qat.QATCallback("w8a8", qat.Schedule(start=0, freeze_observers=1, freeze_batch_norm=1), target=None)
    make_trainer(callback, max_epochs=2).fit(Compiled(), images)
    assert callback.handle.runs == 0  # all of them compiled: eager code alone counts its runs
    assert callback.handle.has_run
