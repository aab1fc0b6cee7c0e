"""A run killed in every phase and resumed ends in the same program, bit for bit, as one that never stopped."""

import json
import subprocess
import sys

#: Trains the digits network for six epochs of 20 steps; argv: folder, step to be killed at (0: never), checkpoint.
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


def integers_in(folder):
    return {name: (folder / "integer" / name).read_bytes() for name in FILES}


def history_in(folder):
    """The epochs without averages over training batches, which Lightning begins anew where it resumes."""
    epochs = json.loads((folder / "integer" / "history.json").read_text())["epochs"]
    for entry in epochs:
        entry["metrics"] = {name: value for name, value in entry["metrics"].items() if not name.startswith("train/")}
    return epochs


def test_a_run_killed_in_every_phase_and_resumed_each_time_ends_in_the_same_program(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finished = run(whole, 0)
    assert finished.returncode == 0, finished.stderr
    resume = []
    for phase, step in KILLED_AT.items():
        stopped = run(killed, step, *resume)
        assert stopped.returncode == -9, (phase, stopped.stderr)
        assert not (killed / "integer").exists()
        resume = [max(killed.glob("last*.ckpt"), key=lambda path: path.stat().st_mtime_ns)]
    resumed = run(killed, 0, *resume)
    assert resumed.returncode == 0, resumed.stderr
    assert integers_in(killed) == integers_in(whole)
    histories = [history_in(killed), history_in(whole)]
    assert histories[0] == histories[1]
    assert [entry["phase"] for entry in histories[0]] == ["observe", *["quantize"] * 3, "frozen", "final"]
