"""The callback in real trainers, on modules written without it in mind."""

import importlib
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import qat
from qat.errors import CheckpointError, ConfigurationError, ObservationError
from qat.inject.handle import handle_of

LIGHTNINGS = ["pytorch_lightning", "lightning.pytorch"]
LINEARS_ONLY = qat.QuantConfig(rules=[qat.Rule("*", quantize=False), qat.Rule(type="Linear", quantize=True)])


@pytest.fixture(params=LIGHTNINGS)
def pl(request):
    return importlib.import_module(request.param)


def loader(size=24, batch_size=8, features=(6,), classes=3):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(size, *features, generator=generator)
    return DataLoader(TensorDataset(inputs, torch.randint(0, classes, (size,), generator=generator)), batch_size)


def network():
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def classifier(pl, net=network, optimizer=lambda parameters: torch.optim.SGD(parameters, 0.1, momentum=0.9)):
    """A LightningModule like thousands of others."""

    class Classifier(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = net()
            self.loss = nn.CrossEntropyLoss()

        def training_step(self, batch, batch_idx):
            inputs, targets = batch
            loss = self.loss(self.net(inputs), targets)
            self.log("train_loss", loss, on_epoch=True)
            return loss

        def validation_step(self, batch, batch_idx):
            inputs, targets = batch
            self.log("val_loss", self.loss(self.net(inputs), targets))

        test_step = validation_step

        def configure_optimizers(self):
            return optimizer(self.net.parameters())

    torch.manual_seed(0)
    return Classifier()


def trainer(pl, path, *callbacks, **options):
    return pl.Trainer(
        **{
            "accelerator": "cpu",
            "default_root_dir": path,
            "callbacks": list(callbacks),
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            "log_every_n_steps": 1,
            "max_epochs": 3,
            **options,
        }
    )


def test_one_line_ends_in_a_verified_file(pl, tmp_path, pictures):
    callback = qat.QATCallback("w4a8")
    model = classifier(pl)
    fit = trainer(pl, tmp_path, callback)
    fit.fit(model, loader(), loader())
    folder = tmp_path / "integer"
    assert {path.name for path in folder.iterdir()} == {
        "certificate.json", "history.json", "model.onnx", "program.json", "program.safetensors", "report.html",
        "report.json", "trained.ckpt",
    }  # fmt: skip
    assert (tmp_path / "plots" / "training_curves.png").is_file()
    report = json.loads((folder / "report.json").read_text())
    assert report["float_ops"] == []
    assert report["mismatches"]["onnxruntime"]["differing"] == report["mismatches"]["fake_quant"]["differing"] == 0
    inputs = next(iter(loader()))[0]
    model.eval()
    assert torch.equal(model.net(inputs), qat.IntegerProgram.load(folder)(inputs))
    callback.handle.remove()
    assert handle_of(model.net) is None


def test_manual_optimization_trains_scales_too(pl, tmp_path):
    class Manual(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False
            self.net = network()

        def forward(self, inputs):
            return self.net(inputs)

        def training_step(self, batch, batch_idx):
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(F.cross_entropy(self(batch[0]), batch[1]))
            optimizer.step()

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), 1e-2)

    callback = qat.QATCallback("w4a4", qat.Schedule(start=0, freeze_observers=2, freeze_batch_norm=3), target=None)
    model = Manual()
    scales = []

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            scales.append(float(callback.handle.quantizers["net.3.output"].scale_in_force()))

    with pytest.warns(UserWarning, match="never reached|before quantization was final"):
        trainer(pl, tmp_path, callback, Watch()).fit(model, loader())
    assert len(set(scales)) > 3
    assert callback.handle.module is model


def test_one_of_two_networks_is_named(pl, tmp_path):
    class Adversarial(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False
            self.generator = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 6))
            self.discriminator = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 1))

        def training_step(self, batch, batch_idx):
            for optimizer, sign in zip(self.optimizers(), (1.0, -1.0), strict=True):
                optimizer.zero_grad()
                self.manual_backward(sign * self.discriminator(self.generator(batch[0])).mean())
                optimizer.step()

        def configure_optimizers(self):
            return [torch.optim.SGD(net.parameters(), 1e-2) for net in (self.generator, self.discriminator)]

    with pytest.raises(ConfigurationError, match="one of 'generator', 'discriminator'"):
        trainer(pl, tmp_path, qat.QATCallback()).fit(Adversarial(), loader())
    callback = qat.QATCallback("w4a8", module="generator")
    model = Adversarial()
    trainer(pl, tmp_path, callback).fit(model, loader())
    assert handle_of(model.generator) is callback.handle
    assert handle_of(model.discriminator) is None
    assert callback.report.mismatches["onnxruntime"].differing == 0


def test_the_linears_of_a_transformer_layer_alone(pl, tmp_path):
    def encoder():
        layer = nn.TransformerEncoderLayer(6, 2, 12, batch_first=True)
        return nn.Sequential(layer, nn.Flatten(), nn.Linear(4 * 6, 3))

    callback = qat.QATCallback(LINEARS_ONLY, target=None)
    trainer(pl, tmp_path, callback).fit(classifier(pl, encoder), loader(features=(4, 6)), loader(features=(4, 6)))
    weights = [name for name, site in callback.handle.plan.sites.items() if site.role == "weight"]
    assert weights == ["0.linear1.weight", "0.linear2.weight", "2.weight"]
    assert callback.handle.state.final
    assert callback.program is None


def test_the_checkpoint_is_a_valid_float_checkpoint(pl, tmp_path):
    callback, model = qat.QATCallback("w4a4", target=None), classifier(pl)
    keys = list(model.state_dict())
    fit = trainer(pl, tmp_path, callback)
    fit.fit(model, loader(), loader())
    path = fit.checkpoint_callback.best_model_path
    content = torch.load(path, weights_only=True)
    assert list(content["state_dict"]) == keys
    fresh = classifier(pl)
    fresh.load_state_dict(content["state_dict"])
    metric = fit.test(model, loader(), verbose=False)
    again = trainer(pl, tmp_path, qat.QATCallback("w4a4", target=None))
    assert again.test(classifier(pl), loader(), ckpt_path=path, verbose=False) == metric
    plain = trainer(pl, tmp_path).test(fresh, loader(), verbose=False)
    assert plain != metric
    callback.handle.remove()
    assert fit.test(model, loader(), verbose=False) == plain


@pytest.mark.parametrize(
    ("quant", "net", "match"),
    [
        ("w3a4", network, "trained as w4a4, with 0.weight at 8 bits|with .* at 4 bits, and this run is w3a4"),
        ("w4a4", lambda: nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)), "not this network's"),
    ],
)
def test_a_checkpoint_of_another_width_or_network_is_refused(quant, net, match, tmp_path):
    pl = importlib.import_module("pytorch_lightning")

    def three():
        return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 3))

    base = three if quant == "w3a4" else network
    fit = trainer(pl, tmp_path, qat.QATCallback("w4a4", target=None))
    fit.fit(classifier(pl, base), loader(), loader())
    path = fit.checkpoint_callback.best_model_path
    before = Path(path).read_bytes()
    other = classifier(pl, base if quant == "w3a4" else net)
    other.strict_loading = False
    with pytest.raises(CheckpointError, match=match):
        trainer(pl, tmp_path / "other", qat.QATCallback(quant, target=None), max_epochs=4).fit(
            other, loader(), loader(), ckpt_path=path
        )
    assert Path(path).read_bytes() == before


def test_best_checkpoints_are_final_ones(pl, tmp_path):
    best = pl.callbacks.ModelCheckpoint(tmp_path / "best", monitor="val_loss", save_top_k=-1, filename="{epoch}")
    always = pl.callbacks.ModelCheckpoint(tmp_path / "always", save_top_k=-1, filename="{epoch}")
    callback = qat.QATCallback("w4a4", qat.Schedule(start=1, freeze_observers=2, freeze_batch_norm=3), target=None)
    fit = trainer(pl, tmp_path, callback, best, always, max_epochs=5)
    fit.fit(classifier(pl), loader(), loader())
    assert sorted(path.name for path in (tmp_path / "best").iterdir()) == ["epoch=3.ckpt", "epoch=4.ckpt"]
    assert len(list((tmp_path / "always").iterdir())) == 5


def test_float_phases_are_plain_training_to_the_bit(tmp_path):
    pl = importlib.import_module("pytorch_lightning")
    weights = []
    for callbacks in ([], [qat.QATCallback("w4a4", qat.Schedule(start=5, freeze_observers=6, freeze_batch_norm=7))]):
        model = classifier(pl, lambda: nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 3)))
        torch.manual_seed(5)
        shuffled = DataLoader(loader().dataset, 8, shuffle=True)
        fit = trainer(pl, tmp_path / str(len(callbacks)), *callbacks)
        if callbacks:
            with pytest.warns(UserWarning, match="never reached|before quantization was final"):
                fit.fit(model, shuffled, loader())
        else:
            fit.fit(model, shuffled, loader())
        weights.append(model.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.parametrize(
    "options",
    [
        {"accumulate_grad_batches": 3},
        {"gradient_clip_val": 0.1},
        {"precision": "bf16-mixed"},
        {"max_epochs": -1, "max_steps": 9},
    ],
)
def test_trainer_options_end_in_a_verified_file(options, tmp_path):
    pl = importlib.import_module("pytorch_lightning")
    callback = qat.QATCallback("w4a4")
    trainer(pl, tmp_path, callback, **options).fit(classifier(pl), loader(26), loader(26))
    assert callback.report.mismatches["onnxruntime"].differing == 0


def test_user_schedulers_and_optimizers_go_along(tmp_path):
    pl = importlib.import_module("pytorch_lightning")

    def one_cycle(parameters):
        optimizer = torch.optim.SGD(parameters, 0.1)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=9)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    callback = qat.QATCallback("w4a4")
    trainer(pl, tmp_path, callback).fit(classifier(pl, optimizer=one_cycle), loader(), loader())
    assert callback.report.ok


def test_a_network_built_in_configure_model(tmp_path):
    pl = importlib.import_module("pytorch_lightning")

    class Late(pl.LightningModule):
        def configure_model(self):
            if not hasattr(self, "net"):
                self.net = network()

        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    callback = qat.QATCallback("w8a8")
    trainer(pl, tmp_path, callback).fit(Late(), loader())
    assert callback.report.ok


def test_a_training_step_that_goes_around_the_network_is_refused(tmp_path):
    pl = importlib.import_module("pytorch_lightning")

    class Around(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = network()

        def forward(self, inputs):
            return self.net(inputs)

        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    with pytest.raises(ConfigurationError, match=r"never called Around\.forward.*QATCallback\(module=\.\.\.\)"):
        trainer(pl, tmp_path, qat.QATCallback(schedule=qat.Schedule(start=0))).fit(Around(), loader())
    callback = qat.QATCallback("w8a8", module="net")
    trainer(pl, tmp_path, callback).fit(Around(), loader())
    assert callback.report.ok


def test_nothing_is_exported_before_the_schedule_is_final(tmp_path):
    pl = importlib.import_module("pytorch_lightning")
    callback = qat.QATCallback("w4a4", qat.Schedule(start=0, freeze_observers=1, freeze_batch_norm=2))
    stop = pl.callbacks.EarlyStopping("train_loss", patience=0, min_delta=100.0, check_on_train_epoch_end=True)
    fit = trainer(pl, tmp_path, callback, stop, max_epochs=9)
    with pytest.warns(UserWarning, match="the run ended in phase 'frozen', before quantization was final"):
        fit.fit(classifier(pl), loader(), loader())
    assert not (tmp_path / "integer").exists()
    assert fit.checkpoint_callback.best_model_path


def test_a_share_of_a_run_without_end_is_refused_before_training(tmp_path):
    pl = importlib.import_module("pytorch_lightning")
    fit = trainer(pl, tmp_path, qat.QATCallback(), max_epochs=-1, max_time="00:00:01:00")
    with pytest.raises(ConfigurationError, match="share 0.5 of a run whose length is unknown; set max_epochs"):
        fit.fit(classifier(pl), loader(), loader())
    assert fit.global_step == 0


def test_nan_while_observing_names_the_layer(tmp_path):
    pl = importlib.import_module("pytorch_lightning")
    data = loader().dataset.tensors
    data[0][17, 2] = float("nan")
    keep = pl.callbacks.ModelCheckpoint(tmp_path, every_n_train_steps=1, filename="kept")
    with pytest.raises(ObservationError, match=r"input\.input met 1 NaN and 0 infinite of 48 values"):
        trainer(pl, tmp_path, qat.QATCallback(schedule=qat.Schedule(start=0)), keep).fit(
            classifier(pl), DataLoader(TensorDataset(*data), 8), loader()
        )
    assert (tmp_path / "kept.ckpt").exists()


def test_history_logger_and_progress_bar_show_phase_and_bits(tmp_path, capsys):
    pl = importlib.import_module("pytorch_lightning")
    ladder = [[0, 8], [2, 6], [3, 4]]
    schedule = qat.Schedule(
        start=1, freeze_observers=4, freeze_batch_norm=4, weight_bits=ladder, activation_bits=ladder
    )
    callback = qat.QATCallback("w4a4", schedule, target=None)
    logger = pl.loggers.CSVLogger(tmp_path)
    bar = pl.callbacks.TQDMProgressBar()
    fit = trainer(pl, tmp_path, callback, bar, max_epochs=6, logger=logger, enable_progress_bar=True)
    deep = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    fit.fit(classifier(pl, lambda: deep), loader(), loader())
    entries = callback.history.entries
    assert [entry["phase"] for entry in entries] == ["float", "quantize", "quantize", "quantize", "final", "final"]
    assert [entry["weight_bits"] for entry in entries] == [32, 8, 6, 4, 4, 4]
    assert entries[3]["layers"]["2.weight"]["sqnr_db"] > 5
    assert {"train_loss", "val_loss"} <= set(entries[0]["metrics"])
    header = (tmp_path / "lightning_logs" / "version_0" / "metrics.csv").read_text().splitlines()[0]
    assert "qat/weight_bits" in header and "qat/sqnr_db/2.weight" in header
    shown = capsys.readouterr()
    assert "final w4a4" in shown.out + shown.err


def test_the_loss_survives_every_change_of_width(tmp_path):
    pl = importlib.import_module("pytorch_lightning")
    ladder = [[0, 8], [4, 6], [5, 4], [6, 3]]
    schedule = qat.Schedule(
        start=3, freeze_observers=8, freeze_batch_norm=8, weight_bits=ladder, activation_bits=ladder
    )
    callback = qat.QATCallback("w3a3", schedule, target=None)
    inputs = torch.randn(256, 6, generator=torch.Generator().manual_seed(0))
    data = DataLoader(TensorDataset(inputs, inputs[:, :3].argmax(1)), 16)

    def deep():
        return nn.Sequential(
            nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 3)
        )

    trainer(pl, tmp_path, callback, max_epochs=10).fit(classifier(pl, deep), data, data)
    losses = [entry["metrics"]["val_loss"] for entry in callback.history.entries]
    assert all(after < 1.6 * before + 0.05 for before, after in zip(losses[2:], losses[3:], strict=False)), losses
