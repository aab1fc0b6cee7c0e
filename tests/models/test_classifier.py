import functools

import pytest
import pytorch_lightning
import torch

from qat.data import DigitsDataModule
from qat.errors import CheckpointError, ConfigurationError
from qat.models import Classifier, DigitsCNN
from qat.models.schedulers import warmup_cosine

SGD = functools.partial(torch.optim.SGD, lr=0.1)


def quick_trainer(**settings):
    return pytorch_lightning.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        **{"max_epochs": 2, "num_sanity_val_steps": 0} | settings,
    )


def test_a_fit_logs_loss_and_accuracy_of_every_split_and_follows_the_scheduler():
    model = Classifier(DigitsCNN(width=2), SGD, warmup_cosine)
    data = DigitsDataModule(limit=64)
    trainer = quick_trainer()
    trainer.fit(model, datamodule=data)
    assert {"train/loss", "train/accuracy", "val/loss", "val/accuracy"} <= set(trainer.callback_metrics)
    assert trainer.optimizers[0].param_groups[0]["lr"] < 0.1
    logged = trainer.test(model, datamodule=data, verbose=False)[0]
    batch, labels = next(iter(data.test_dataloader()))
    model.eval()
    correct = (model.network(batch).argmax(1) == labels).float().mean().item()
    assert logged["test/accuracy"] == pytest.approx(correct)


def test_label_smoothing_counts_in_training_only():
    model = Classifier(DigitsCNN(width=2), SGD, label_smoothing=0.5)
    model.log = lambda *args, **kwargs: None
    batch = torch.zeros(4, 1, 8, 8), torch.tensor([0, 1, 2, 3])
    model.eval()
    logits = model.network(batch[0])
    plain = torch.nn.functional.cross_entropy(logits, batch[1])
    smooth = torch.nn.functional.cross_entropy(logits, batch[1], label_smoothing=0.5)
    assert torch.equal(model.training_step(batch, 0), smooth)
    assert torch.equal(model._step(batch, "val"), plain)


def test_its_keys_are_those_of_the_network():
    model = Classifier(DigitsCNN(width=2), SGD)
    assert set(model.state_dict()) == {f"network.{key}" for key in DigitsCNN(width=2).state_dict()}


def test_it_starts_from_a_checkpoint(tmp_path):
    source = DigitsCNN(width=2)
    torch.save(source.state_dict(), tmp_path / "weights.pt")
    model = Classifier(DigitsCNN(width=2), SGD, checkpoint=str(tmp_path / "weights.pt"))
    assert torch.equal(model.network.linear.weight, source.linear.weight)
    with pytest.raises(CheckpointError, match="not of a DigitsCNN"):
        Classifier(DigitsCNN(width=3), SGD, checkpoint=str(tmp_path / "weights.pt"))


def test_its_test_metrics_are_fresh():
    model = Classifier(DigitsCNN(width=2), SGD)
    model.test_metrics()["accuracy"].update(torch.eye(10), torch.zeros(10, dtype=torch.int64))
    again = model.test_metrics()["accuracy"]
    again.update(torch.eye(10), torch.arange(10))
    assert again.compute() == 1.0


def test_a_run_without_an_end_cannot_have_a_scheduler():
    model = Classifier(DigitsCNN(width=2), SGD, warmup_cosine)
    with pytest.raises(ConfigurationError, match="has no end; set trainer.max_epochs"):
        quick_trainer(max_epochs=-1).fit(model, datamodule=DigitsDataModule(limit=8))


def test_label_smoothing_is_a_share():
    with pytest.raises(ConfigurationError, match="model.label_smoothing is 1.0"):
        Classifier(DigitsCNN(width=2), SGD, label_smoothing=1.0)


def test_what_the_optimizer_refuses_is_a_mistake_in_the_settings():
    model = Classifier(DigitsCNN(width=2), functools.partial(torch.optim.SGD, lr=-1))
    with pytest.raises(ConfigurationError, match="the optimizer cannot be made: Invalid learning rate: -1; change opt"):
        quick_trainer().fit(model, datamodule=DigitsDataModule(limit=8))
