"""Runs that end or are cut off before they are final keep something to go on from, and go on exactly."""

import copy

import pytest
import pytorch_lightning
import torch

import qat
from qat.errors import MissingExtraError

#: Lightning names the callbacks that wrote a checkpoint and are not there any more.
pytestmark = pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")

SCHEDULE = qat.Schedule(
    start=1, freeze_observers=4, freeze_batch_norm=5, weight_bits={0: 8, 2: 6, 3: 4}, activation_bits={0: 8, 2: 6, 3: 4}
)

ModelCheckpoint = pytorch_lightning.callbacks.ModelCheckpoint


def adam(parameters):
    return torch.optim.Adam(parameters, lr=0.01)


def same(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    return one == other


@pytest.mark.parametrize("where", ["behind validation", "behind the epoch"])
def test_checkpoints_of_every_epoch_resume_exactly(where, make_trainer, plain_module, images, tmp_path):
    def run(folder, **resume):
        keep = ModelCheckpoint(
            tmp_path / folder, "{epoch}", save_top_k=-1, save_on_train_epoch_end=where == "behind the epoch"
        )
        callback, module = qat.QATCallback("w4a4", SCHEDULE, target=None), plain_module(adam)
        trainer = make_trainer(callback, keep, enable_checkpointing=True, max_epochs=6)
        trainer.fit(module, images, images, weights_only=True, **resume)
        return copy.deepcopy((module.state_dict(), callback.state_dict()))

    def without_metrics(state):
        history = [{**entry, "metrics": None} for entry in state["history"]]
        return {**state, "history": history}

    uninterrupted = run("whole")
    assert [entry["epoch"] for entry in uninterrupted[1]["history"]] == list(range(6))
    for epoch in range(5):
        resumed = run(f"from{epoch}", ckpt_path=tmp_path / "whole" / f"epoch={epoch}.ckpt")
        assert same(resumed[0], uninterrupted[0]), epoch
        assert same(without_metrics(resumed[1]), without_metrics(uninterrupted[1])), epoch
        # behind validation the metrics of training are not there yet, and Lightning never ends that epoch again
        missing = {"train_loss"} if where == "behind validation" else set()
        for found, expected in zip(resumed[1]["history"], uninterrupted[1]["history"], strict=True):
            late = missing if found["epoch"] == epoch else set()
            assert found["metrics"] == {name: expected["metrics"][name] for name in {"train_loss", "val_loss"} - late}


def test_a_run_with_monitored_checkpoints_alone_keeps_one_when_it_ends_early(
    make_trainer, plain_module, images, tmp_path, capsys
):
    best = ModelCheckpoint(tmp_path / "kept", monitor="val_loss")
    callback = qat.QATCallback("w4a4", SCHEDULE, target=None)
    stop = pytorch_lightning.callbacks.EarlyStopping("val_loss", patience=0, min_delta=100.0)
    with pytest.warns(UserWarning, match=r"in phase 'quantize'.*resume .*kept/unfinished\.ckpt \(ckpt_path=\)"):
        make_trainer(callback, best, stop, enable_checkpointing=True, max_epochs=6).fit(
            plain_module(adam), images, images
        )
    assert "add save_last=True" in capsys.readouterr().out
    resumed = qat.QATCallback("w4a4", SCHEDULE, target=None)
    last = ModelCheckpoint(tmp_path / "later", monitor="val_loss", save_last=True)
    make_trainer(resumed, last, enable_checkpointing=True, max_epochs=6).fit(
        plain_module(adam, seed=1),
        images,
        images,
        ckpt_path=tmp_path / "kept" / "unfinished.ckpt",
        weights_only=True,
    )
    assert resumed.handle.state.final
    assert [entry["epoch"] for entry in resumed.history.entries] == list(range(6))
    assert (tmp_path / "later" / "last.ckpt").is_file()
    assert "epoch=5" in last.best_model_path
    assert "add save_last=True" not in capsys.readouterr().out


def test_a_run_without_checkpoints_says_so(make_trainer, plain_module, images):
    callback = qat.QATCallback("w4a4", qat.Schedule(), target=None)
    stop = pytorch_lightning.callbacks.EarlyStopping("val_loss", patience=0, min_delta=100.0)
    with pytest.warns(UserWarning, match="nothing is exported; train for more epochs, or let the schedule end earlier"):
        make_trainer(callback, stop).fit(plain_module(), images, images)


def test_a_runtime_that_is_not_installed_is_missed_before_the_first_batch(
    make_trainer, plain_module, images, monkeypatch
):
    def missing(runtime):
        raise MissingExtraError(f"exporting for {runtime} needs the package 'onnx'")

    monkeypatch.setattr("qat.callback.emitter_of", missing)
    module = plain_module(adam)
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(MissingExtraError, match="onnxruntime needs the package 'onnx'"):
        make_trainer(qat.QATCallback("w8a8")).fit(module, images, images)
    assert same(module.state_dict(), before)
    make_trainer(qat.QATCallback("w8a8", target=None)).fit(module, images, images)
