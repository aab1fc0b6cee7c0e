import functools

import pytest
import pytorch_lightning
import torch

from qat.data import ShapesDataModule
from qat.data.shapes import SHAPES
from qat.errors import ConfigurationError
from qat.models import AnchorFreeDetector, Detector
from qat.models.boxes import points_of
from qat.models.detection_loss import detection_loss

ADAM = functools.partial(torch.optim.Adam, lr=1e-2)


@pytest.fixture(scope="module")
def fitted():
    pytorch_lightning.seed_everything(0, verbose=False)
    model = Detector(AnchorFreeDetector(width=2), ADAM, SHAPES)
    data = ShapesDataModule({"train": 48, "val": 8, "test": 8}, batch_size=8)
    trainer = pytorch_lightning.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(model, datamodule=data)
    return trainer, model, data


def test_a_fit_logs_the_loss_of_every_split_and_the_precision_of_what_is_held_out(fitted):
    trainer, model, data = fitted
    assert {"train/loss", "val/loss", "val/map"} <= set(trainer.callback_metrics)
    assert "train/map" not in trainer.callback_metrics
    logged = trainer.test(model, datamodule=data, verbose=False)[0]
    (batch,) = data.test_dataloader()
    model.eval()
    outputs = model.network(batch[0])
    fresh = model.test_metrics()["map"]
    fresh.update(outputs, batch[1])
    assert logged["test/map"] == pytest.approx(fresh.compute().item())
    assert logged["test/loss"] == pytest.approx(detection_loss(outputs, batch[1], points_of(64, (8, 16))).item())


def test_training_lowers_the_loss(fitted):
    _, model, data = fitted
    (images, targets) = next(iter(data.val_dataloader()))
    fresh = AnchorFreeDetector(width=2).eval()
    points = points_of(64, (8, 16))
    before, after = (detection_loss(net(images), targets, points) for net in (fresh, model.network.eval()))
    assert after < before


def test_images_of_another_size_are_refused(fitted):
    _, model, _ = fitted
    with pytest.raises(ConfigurationError, match="images have 64 x 96 pixels and model.image_size is 64; set it"):
        model.training_step((torch.zeros(1, 3, 64, 96), {}), 0)


def test_its_keys_are_those_of_the_network(fitted):
    _, model, _ = fitted
    assert set(model.state_dict()) == {f"network.{key}" for key in AnchorFreeDetector(width=2).state_dict()}
