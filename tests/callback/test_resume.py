"""A run killed in every phase and resumed ends in the same program, bit for bit, as one that never stopped."""

import json
import signal

from fresh_processes import finish, start

#: Trains the digits network for six epochs of 8 steps; argv: folder, step to be killed at (0: never), checkpoint.
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
schedule = qat.Schedule(start=1, observe="4 steps", freeze_observers=4, freeze_batch_norm=5,
                        weight_bits=ladder, activation_bits=ladder)
callback = qat.QATCallback("w4a4", schedule, export_dir=folder + "/integer")
every = pl.callbacks.ModelCheckpoint(folder, every_n_train_steps=3, save_top_k=-1, save_last=True)
trainer = pl.Trainer(max_epochs=6, accelerator="cpu", logger=False, callbacks=[callback, every, Kill()],
                     enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0)
trainer.fit(model, DigitsDataModule(batch_size=64, limit=512), ckpt_path=resume)
"""
FILES = ("program.json", "program.safetensors", "model.onnx")

#: Phase -> optimizer step at which the run is killed, of 8 an epoch: always in the middle of an epoch, and one or two
#: steps behind a checkpoint.
KILLED_AT = {
    "float": 4,
    "observe": 7,
    "quantize at 8 bits": 14,
    "quantize at 4 bits": 28,
    "observers frozen": 37,
    "batch norm frozen": 46,
}


def run(folder, kill, *resume):
    """The exit code of a run, and what it printed on stderr."""
    folder.mkdir(exist_ok=True)
    code = finish(start(SCRIPT, folder, kill, *resume, folder=folder))
    return code, (folder / "stderr").read_text()


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
    code, errors = run(whole, 0)
    assert code == 0, errors
    resume = []
    for phase, step in KILLED_AT.items():
        code, errors = run(killed, step, *resume)
        assert code == -signal.SIGKILL, (phase, errors)
        assert not (killed / "integer").exists()
        resume = [max(killed.glob("last*.ckpt"), key=lambda path: path.stat().st_mtime_ns)]
    code, errors = run(killed, 0, *resume)
    assert code == 0, errors
    assert integers_in(killed) == integers_in(whole)
    histories = [history_in(killed), history_in(whole)]
    assert histories[0] == histories[1]
    assert [entry["phase"] for entry in histories[0]] == ["observe", *["quantize"] * 3, "frozen", "final"]
