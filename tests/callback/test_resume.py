"""A run killed in any phase and resumed ends in the same program, bit for bit, as one that never stopped."""

import json
import subprocess
import sys

import pytest

#: Trains the digits network for six epochs of `STEPS` steps; argv: folder, step to kill itself at (0: never), checkpoint.
SCRIPT = """
import functools, os, signal, sys, warnings
warnings.filterwarnings("ignore")
import pytorch_lightning as pl, torch, qat
from qat.data import DigitsDataModule
from qat.models import Classifier, DigitsCNN

torch.set_num_threads(1)
folder, kill, resume = sys.argv[1], int(sys.argv[2]), (sys.argv[3:] or [None])[0]

class Kill(pl.Callback):
    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if trainer.global_step == kill:
            os.kill(os.getpid(), signal.SIGKILL)

pl.seed_everything(0, verbose=False)
optimizer = functools.partial(torch.optim.AdamW, lr=3e-3)
model = Classifier(network=DigitsCNN(), optimizer=optimizer, scheduler=None, num_classes=10)
ladder = [[0, 8], [2, 6], [3, 4]]
schedule = qat.Schedule(start=1, observe="10 steps", freeze_observers=4, freeze_batch_norm=5,
                        weight_bits=ladder, activation_bits=ladder)
callback = qat.QATCallback("w4a4", schedule, export_dir=folder + "/integer")
every = pl.callbacks.ModelCheckpoint(folder, every_n_train_steps=3, save_top_k=-1, save_last=True)
trainer = pl.Trainer(max_epochs=6, accelerator="cpu", logger=False, callbacks=[callback, every, Kill()],
                     enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0)
trainer.fit(model, DigitsDataModule(batch_size=64), ckpt_path=resume)
"""
FILES = ("program.json", "program.safetensors", "model.onnx")

#: Phase -> optimizer step at which the run is killed, of 20 an epoch: always in the middle of an epoch.
KILLED_AT = {
    "float": 7,
    "observe": 14,
    "quantize at 8 bits": 29,
    "quantize at 4 bits": 65,
    "observers frozen": 86,
    "batch norm frozen": 107,
}


def run(folder, kill, *resume):
    arguments = [sys.executable, "-c", SCRIPT, str(folder), str(kill), *map(str, resume)]
    return subprocess.run(arguments, capture_output=True, text=True, timeout=100)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    finished = run(folder, 0)
    assert finished.returncode == 0, finished.stderr
    return {name: (folder / "integer" / name).read_bytes() for name in FILES}


@pytest.mark.parametrize("phase", KILLED_AT)
def test_a_killed_run_resumes_exactly(phase, uninterrupted, tmp_path):
    killed = run(tmp_path, KILLED_AT[phase])
    assert killed.returncode == -9, killed.stderr
    assert not (tmp_path / "integer").exists()
    resumed = run(tmp_path, 0, tmp_path / "last.ckpt")
    assert resumed.returncode == 0, resumed.stderr
    assert {name: (tmp_path / "integer" / name).read_bytes() for name in FILES} == uninterrupted
    history = json.loads((tmp_path / "integer" / "history.json").read_text())["epochs"]
    assert [entry["phase"] for entry in history] == ["observe", *["quantize"] * 3, "frozen", "final"]
