"""Quantization-aware training for files that are not integer."""

import json

import pytest
import pytorch_lightning
import torch
from torch import nn

import qat
from qat.errors import ConfigurationError
from qat.integer.images import ImageScaling
from qat.real.program import RealProgram


class Module(pytorch_lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.network = nn.Sequential(
            nn.Linear(8, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 16), nn.Linear(16, 2)
        )

    def training_step(self, batch, index):
        return nn.functional.cross_entropy(self.network(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 1e-2)


@pytest.mark.parametrize("quant", ["w4-weight-only", "w2-weight-only", "w8-dynamic"])
def test_a_run_ends_in_a_verified_file(quant, tmp_path, pictures):
    torch.manual_seed(0)
    data = torch.utils.data.TensorDataset(torch.randn(64, 8), torch.randint(2, (64,)))
    loader = torch.utils.data.DataLoader(data, 16)
    callback = qat.QATCallback(quant, module="network", export_dir=tmp_path)
    (tmp_path / "certificate.json").write_text("{}")  # of an integer file that was here before
    trainer = pytorch_lightning.Trainer(
        max_epochs=4, callbacks=[callback], logger=False, enable_checkpointing=False, enable_progress_bar=False,
        accelerator="cpu",
    )  # fmt: skip
    trainer.fit(Module(), loader)
    assert isinstance(callback.program, RealProgram)
    assert (callback.report.ok, callback.report.as_exported) == (False, True)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"model.onnx", "real_program.json", "real_program.safetensors", "report.json", "report.html"} <= names
    assert not {"program.json", "certificate.json"} & names
    report = json.loads((tmp_path / "report.json").read_text())
    assert set(report["metrics"]) == {"float", "fake_quant", "exported"}
    assert report["way"] == quant.partition("-")[2]
    page = (tmp_path / "report.html").read_text()
    assert f"not integer: {report['way']}" in page
    assert "equal code for code" not in page


def test_there_is_nothing_to_train_without_a_weight_grid():
    with pytest.raises(ConfigurationError, match="fp16 gives nothing a grid, so there is nothing to train for"):
        qat.QATCallback("fp16")


def test_raw_pictures_need_an_integer_input():
    with pytest.raises(ConfigurationError, match="raw pictures need an integer input, but activations are 'float'"):
        qat.QATCallback("w4-weight-only", image_input=ImageScaling(mean=(0.0,), std=(1.0,)))
