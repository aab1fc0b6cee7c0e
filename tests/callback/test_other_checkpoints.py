"""A checkpoint of another module is refused in one sentence, before anything of it is restored."""

import importlib

import pytest
import torch
from torch import nn

import qat
from qat.errors import CheckpointError

SCHEDULE = qat.Schedule(start=0, freeze_observers=1, freeze_batch_norm=1)


@pytest.fixture
def checkpoint(make_trainer, plain_module, images, tmp_path):
    """Of a quantized run of `PlainModule`."""
    trainer = make_trainer(qat.QATCallback("w8a8", SCHEDULE, target=None), max_epochs=2)
    trainer.fit(plain_module(), images, images)
    trainer.save_checkpoint(tmp_path / "plain.ckpt")
    return tmp_path / "plain.ckpt"


def other_network(width: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(width, 3),
    )  # fmt: skip


@pytest.mark.parametrize("loop", ["fit", "validate", "test"])
def test_what_differs_is_named_and_nothing_is_restored(loop, checkpoint, make_trainer, plain_module, images):
    class Other(plain_module.kind):
        def __init__(self, optimizers=None):
            super().__init__(optimizers)
            self.network = other_network(7)

    module = plain_module(kind=Other)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    trainer = make_trainer(qat.QATCallback("w8a8", SCHEDULE, target=None), max_epochs=3)
    loaders = (images, images) if loop == "fit" else (images,)
    with pytest.raises(CheckpointError) as caught:
        getattr(trainer, loop)(module, *loaders, ckpt_path=checkpoint)
    told = str(caught.value)
    assert told == (
        f"the checkpoint {str(checkpoint)!r} is not of this Other: it misses network.5.weight, network.5.bias and has "
        "besides network.1.weight, network.1.bias, network.1.running_mean, network.1.running_var, "
        "network.1.num_batches_tracked and 9 more and has another shape for network.0.weight (4, 1, 3, 3) instead of "
        "(7, 1, 3, 3), network.0.bias (4,) instead of (7,); "
        "pass a checkpoint of the same module, made with the same arguments."
    )
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_a_prepared_module_keeps_its_quantizers(checkpoint, make_trainer, plain_module, images):
    class Wider(plain_module.kind):
        def __init__(self, optimizers=None):
            super().__init__(optimizers)
            self.network = other_network(5)

    callback = qat.QATCallback("w8a8", SCHEDULE, target=None)
    module = plain_module(kind=Wider)
    make_trainer(callback, max_epochs=2).fit(module, images, images)
    before = str(callback.handle.state_dict())
    with pytest.raises(CheckpointError, match="is not of this Wider"):
        make_trainer(callback, max_epochs=3).fit(module, images, images, ckpt_path=checkpoint)
    assert str(callback.handle.state_dict()) == before


def test_names_that_the_module_brings_up_to_date_itself_are_no_difference(
    checkpoint, make_trainer, plain_module, images
):
    class Renamed(plain_module.kind):
        def __init__(self, optimizers=None):
            super().__init__(optimizers)
            self.net, self.network = self.network, None
            self.forward = None

        def on_load_checkpoint(self, content):
            state = content["state_dict"]
            content["state_dict"] = {name.replace("network.", "net."): value for name, value in state.items()}

        def validation_step(self, batch, batch_idx):
            self.net(batch[0])

    make_trainer(qat.QATCallback("w8a8", SCHEDULE, target=None)).validate(
        plain_module(kind=Renamed), images, ckpt_path=checkpoint
    )


def test_a_module_that_does_not_restore_strictly_takes_what_fits(checkpoint, make_trainer, plain_module, images):
    class Headed(plain_module.kind):
        def __init__(self, optimizers=None):
            super().__init__(optimizers)
            self.head = nn.Linear(2, 2)
            self.strict_loading = False

    module = plain_module(kind=Headed)
    callback = qat.QATCallback("w8a8", SCHEDULE, target=None, module=module.network)
    make_trainer(callback).validate(module, images, ckpt_path=checkpoint)
    stored = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert torch.equal(module.network[0].weight, stored["network.0.weight"])


@pytest.mark.parametrize("package", ["pytorch_lightning", "lightning.pytorch"])
def test_metrics_are_left_to_their_own_way_of_reading(package, make_trainer, plain_module, images, tmp_path):
    from torchmetrics.classification import MulticlassAccuracy

    pl = importlib.import_module(package)

    class Measured(pl.LightningModule):
        persistent = True

        def __init__(self):
            super().__init__()
            self.network = other_network(4)
            self.accuracy = MulticlassAccuracy(num_classes=3)
            self.accuracy.persistent(self.persistent)

        def training_step(self, batch, batch_idx):
            return nn.functional.cross_entropy(self.network(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.network.parameters(), lr=0.1)

    class Forgetful(Measured):
        persistent = False

    def trainer(epochs):
        callback = qat.QATCallback("w8a8", SCHEDULE, target=None, module="network")
        return make_trainer(callback, package=pl, max_epochs=epochs)

    first = trainer(2)
    first.fit(Measured(), images)
    first.save_checkpoint(tmp_path / "measured.ckpt")
    assert "accuracy.tp" in torch.load(tmp_path / "measured.ckpt", weights_only=True)["state_dict"]
    trainer(3).fit(Forgetful(), images, ckpt_path=tmp_path / "measured.ckpt")
