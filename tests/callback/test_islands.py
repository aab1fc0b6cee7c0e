"""A Trainer with the callback on a network of which a rule leaves an operation in float."""

import json

import pytest
import pytorch_lightning
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import qat
from qat.errors import PreparationError

SCHEDULE = qat.Schedule(start=0, freeze_observers=1, freeze_batch_norm=1)


class Sampler(nn.Module):
    """Looks where the features of a picture say, as spatial transformers do."""

    def __init__(self):
        super().__init__()
        self.features, self.norm = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.places, self.head = nn.Conv2d(4, 2, 1), nn.Linear(4, 3)

    def forward(self, images):
        features = F.relu(self.norm(self.features(images)))
        places = self.places(features).tanh().permute(0, 2, 3, 1)
        return self.head(F.grid_sample(features, places, align_corners=False).mean((2, 3)))


class Module(pytorch_lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.network = Sampler()

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.network(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", F.cross_entropy(self.network(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05)


def batches():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(24) % 3
    images = torch.rand(24, 1, 6, 6, generator=generator) + labels.view(-1, 1, 1, 1) * 0.5
    return DataLoader(TensorDataset(images, labels), 8)


def fit(callback, folder):
    pytorch_lightning.seed_everything(0, verbose=False)
    module = Module()
    trainer = pytorch_lightning.Trainer(
        accelerator="cpu", default_root_dir=folder, callbacks=[callback], logger=False, max_epochs=3,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(module, batches(), batches())
    return module


def test_without_a_rule_the_error_has_the_rule_that_works(tmp_path):
    with pytest.raises(PreparationError, match="grid_sample in the network at .*test_islands.py:") as refusal:
        fit(qat.QATCallback("w8a8", SCHEDULE), tmp_path)
    assert 'rules=[qat.Rule("grid_sample", quantize=False)]' in str(refusal.value)
    assert "quant.rules: [{name: 'grid_sample', quantize: false}]" in str(refusal.value)


def test_a_run_with_an_island_trains_exports_verifies_and_says_so(tmp_path, capsys, pictures):
    quant = qat.QuantConfig(rules=[qat.Rule("grid_sample", quantize=False)])
    callback = qat.QATCallback(quant, SCHEDULE, export_dir=tmp_path / "out")
    module = fit(callback, tmp_path)
    printed = capsys.readouterr().out
    assert "left in float, as islands between integers: grid_sample; the file will not be integer" in printed
    assert "float islands: grid_sample\n" in str(callback.handle)
    assert [island.function for island in callback.program.float_operations] == ["grid_sample"]
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["islands"] == ["grid_sample"] and report["ok"] is False
    assert report["float_ops"] and all("grid_sample" in node for node in report["float_ops"])
    assert report["mismatches"]["onnxruntime"]["differing"] == 0
    assert report["mismatches"]["fake_quant"]["differing"] == 0
    assert report["island_codes"]["max_lsb"] <= 1
    (row,) = [row for row in report["layers"] if row["kind"] == "FloatIsland"]
    assert row["name"] == "grid_sample"
    page = (tmp_path / "out" / "report.html").read_text()
    assert "equal, with 1 float island<" in page and "<li>grid_sample</li>" in page
    images = next(iter(batches()))[0]
    module.network.eval()
    with torch.no_grad():
        assert torch.equal(module.network(images), callback.program(images))
    loaded = qat.IntegerProgram.load(tmp_path / "out")
    again = qat.verify(loaded, tmp_path / "out" / "model.onnx", [images], repeats=0)
    assert again.as_exported and "equal, but 1 operation is a float island" in str(again)
    assert "grid_sample" in str(again)


def test_a_layer_in_float_is_trained_beside_learned_scales(tmp_path):
    quant = qat.QuantConfig.parse("w4a4")
    rules = [qat.Rule("grid_sample", quantize=False), qat.Rule("places", quantize=False)]
    callback = qat.QATCallback(
        qat.QuantConfig(weight=quant.weight, activation=quant.activation, rules=rules), SCHEDULE, export_dir=tmp_path
    )
    module = fit(callback, tmp_path)
    assert callback.report.islands == ("places", "grid_sample")
    (places, _) = callback.program.float_operations
    assert torch.equal(places.constants["weight"], module.network.places.weight)
    assert callback.report.mismatches["fake_quant"].differing == 0
