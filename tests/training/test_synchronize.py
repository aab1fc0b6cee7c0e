"""Two processes on different data end with equal scales, ranges and weights."""

import subprocess
import sys

import torch

#: Trains on two processes of one machine; every rank writes its state. argv: folder.
SCRIPT = """
import sys, warnings
warnings.filterwarnings("ignore")
import pytorch_lightning as pl, torch, qat
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from pytorch_lightning.strategies import DDPStrategy

(folder,) = sys.argv[1:]

class Module(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)

class Write(pl.Callback):
    def on_train_end(self, trainer, module):
        state = {"handle": callback.handle.state_dict(), "module": module.state_dict(),
                 "optimizer": callback.state_dict()["optimizer"]["state"]}
        torch.save(state, f"{folder}/rank{trainer.global_rank}.pt")

if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(0)
    inputs = torch.randn(64, 6) * torch.linspace(0.1, 4, 64).view(-1, 1)
    data = DataLoader(TensorDataset(inputs, inputs[:, :3].argmax(1)), 8)
    weight = qat.QuantSpec(4, granularity="per_channel")
    activation = qat.QuantSpec(4, signed=False, symmetric=False, observer="histogram")
    config = qat.QuantConfig(weight, activation)  # its first and last layer are observed, the others learn
    ladder = [[0, 8], [2, 4]]
    schedule = qat.Schedule(start=1, freeze_observers=3, freeze_batch_norm=4,
                            weight_bits=ladder, activation_bits=ladder)
    callback = qat.QATCallback(config, schedule, export_dir=folder + "/out")
    trainer = pl.Trainer(max_epochs=5, accelerator="cpu", devices=2, strategy=DDPStrategy(process_group_backend="gloo"),
                         logger=False, enable_progress_bar=False, enable_model_summary=False,
                         enable_checkpointing=False, callbacks=[callback, Write()], default_root_dir=folder)
    trainer.fit(Module(), data)
"""


def equal(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    return torch.equal(one, other)


def test_ranks_agree(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(tmp_path)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert finished.returncode == 0, finished.stderr[-3000:]
    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert equal(first["module"], second["module"])
    assert equal(first["handle"], second["handle"])
    assert equal(first["optimizer"], second["optimizer"])
    assert (tmp_path / "out" / "model.onnx").is_file()
