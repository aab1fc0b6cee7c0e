"""A Trainer whose callback exports for several runtimes, and one whose runtime cannot run the network."""

import json

import pytest
import pytorch_lightning
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import qat
from qat.errors import ConfigurationError, PreparationError

SCHEDULE = qat.Schedule(start=0, freeze_observers=1, freeze_batch_norm=1)


class Residual(nn.Module):
    def __init__(self, norm):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 4, 3, padding=1), norm
        self.body, self.head = nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 3)

    def forward(self, images):
        features = F.relu(self.norm(self.stem(images)))
        return self.head((features + F.relu(self.body(features))).mean((2, 3)))


class Module(pytorch_lightning.LightningModule):
    def __init__(self, norm):
        super().__init__()
        self.network = Residual(norm)
        self.steps = 0

    def training_step(self, batch, batch_idx):
        self.steps += 1
        return F.cross_entropy(self.network(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", F.cross_entropy(self.network(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05)


def fit(callback, folder, norm=None):
    pytorch_lightning.seed_everything(0, verbose=False)
    labels = torch.arange(24) % 3
    images = torch.rand(24, 1, 6, 6) + labels.view(-1, 1, 1, 1) * 0.5
    loader = DataLoader(TensorDataset(images, labels), 8)
    module = Module(norm or nn.BatchNorm2d(4))
    trainer = pytorch_lightning.Trainer(
        accelerator="cpu", default_root_dir=folder, callbacks=[callback], logger=False, max_epochs=3,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    try:
        trainer.fit(module, loader, loader)
    finally:
        assert module.steps in (0, 9)
    return module


def test_a_file_for_every_runtime_of_the_target_each_equal_to_the_program(tmp_path):
    callback = qat.QATCallback("w4a8", SCHEDULE, target=["onnxruntime", "litert", "c"])
    fit(callback, tmp_path)
    folder = tmp_path / "integer"
    assert {"model.onnx", "model.tflite", "model.c", "model.h"} <= {path.name for path in folder.iterdir()}
    assert callback.report.ok and list(callback.report.files) == ["onnxruntime", "litert", "c"]
    content = json.loads((folder / "report.json").read_text())
    assert {name: entry["mismatch"]["differing"] for name, entry in content["files"].items()} == {
        "onnxruntime": 0, "litert": 0, "c": 0,
    }  # fmt: skip
    assert content["mismatches"]["fake_quant"]["differing"] == 0  # trained with the rounding of the first


def test_the_first_runtime_is_the_one_that_validation_computes(tmp_path):
    callback = qat.QATCallback("w4a8", SCHEDULE, target=("litert", "onnxruntime"))
    fit(callback, tmp_path)
    assert callback.report.ok and callback.report.mismatches["fake_quant"].differing == 0
    assert callback.handle.rounding == "litert"


def test_a_layer_without_a_kernel_is_refused_before_the_first_step(tmp_path):
    callback = qat.QATCallback("w8a8", SCHEDULE, target=["onnxruntime", "litert"])
    with pytest.raises(
        PreparationError,
        match=r"^litert cannot run this network: .*norm.*max pool with dilation",
    ):
        fit(callback, tmp_path, norm=nn.MaxPool2d(3, stride=1, padding=1, dilation=2))
    assert not (tmp_path / "integer").exists()


def test_a_target_is_checked_when_it_is_written():
    with pytest.raises(ConfigurationError, match="unknown target 'tflite'"):
        qat.QATCallback("w8a8", target=["onnxruntime", "tflite"])
    with pytest.raises(ConfigurationError, match=r"16, but onnxruntime and c"):
        qat.QATCallback("w8a16", target=["onnxruntime", "c"])
