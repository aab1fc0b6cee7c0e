"""A plain LightningModule, written without quantization in mind, and a trainer as small as can be."""

import pytest
import pytorch_lightning
import torch
from pages_without_pictures import pages_without_pictures, pictures  # noqa: F401
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

torch.set_num_threads(1)


class PlainNetwork(nn.Sequential):
    def __init__(self):
        super().__init__(
            nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
            nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3),
        )  # fmt: skip


class PlainModule(pytorch_lightning.LightningModule):
    """Cross entropy on three classes; keeps the losses of its batches. optimizers: parameters -> optimizers."""

    def __init__(self, optimizers=None):
        super().__init__()
        self.network = PlainNetwork()
        self.optimizers_of = optimizers or (lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9))
        self.losses: list[float] = []

    def training_step(self, batch, batch_idx):
        loss = F.cross_entropy(self.network(batch[0]), batch[1])
        self.losses.append(loss.item())
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", F.cross_entropy(self.network(batch[0]), batch[1]))

    def test_step(self, batch, batch_idx):
        self.log("test_loss", F.cross_entropy(self.network(batch[0]), batch[1]))

    def predict_step(self, batch, batch_idx):
        return self.network(batch[0])

    def configure_optimizers(self):
        return self.optimizers_of(self.parameters())


def make_images(size=32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(size) % 3
    images = torch.rand(size, 1, 6, 6, generator=generator) + labels.view(-1, 1, 1, 1) * 0.5
    return TensorDataset(images, labels)


@pytest.fixture
def images():
    """A loader of four batches of eight pictures, in order."""
    return DataLoader(make_images(), 8)


@pytest.fixture
def plain_module():
    """Makes a `PlainModule` whose weights follow from `seed`."""

    def make(optimizers=None, seed=0, kind=PlainModule):
        torch.manual_seed(seed)
        return kind(optimizers)

    make.kind = PlainModule
    return make


@pytest.fixture
def make_trainer(tmp_path):
    """Makes a silent trainer on the CPU; keywords as `Trainer` takes them."""

    def make(*callbacks, package=pytorch_lightning, **settings):
        defaults = {
            "max_epochs": 5, "accelerator": "cpu", "devices": 1, "logger": False, "enable_progress_bar": False,
            "enable_model_summary": False, "enable_checkpointing": False, "default_root_dir": tmp_path,
            "num_sanity_val_steps": 0,
        }  # fmt: skip
        return package.Trainer(**{**defaults, **settings}, callbacks=list(callbacks))

    return make
