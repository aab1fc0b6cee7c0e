"""A training loss that the frozen end of a run raised is named with what to do."""

import pytest
from torch import nn

from qat.training.divergence import diverged

NETWORK = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))


def entries(*losses, name="train/loss", phases=("quantize", "frozen", "final"), bits=(4, 4, 4)):
    return [
        {"epoch": epoch, "phase": phase, "weight_bits": width, "activation_bits": 8, "metrics": {name: loss}}
        for epoch, (loss, phase, width) in enumerate(zip(losses, phases, bits, strict=True))
    ]


def test_a_loss_that_rose_is_named_with_its_epochs():
    assert diverged(NETWORK, entries(0.45, 0.33, 2.306)) == [
        "train/loss is 2.31 at the end and was 0.33 in epoch 1, before batch norm was frozen in epoch 2; freeze it "
        "where the learning rate is small (freeze_batch_norm=0.9), or clip gradients (Trainer(gradient_clip_val=1.0))."
    ]
    (sentence,) = diverged(NETWORK, entries(0.45, 0.33, None))
    assert sentence.startswith("train/loss is no number at the end")


@pytest.mark.parametrize(
    "told",
    [
        entries(0.45, 0.33, 0.66),
        entries(-0.45, -0.33, 2.0),
        entries(None, None, 2.0),
        entries(0.45, 0.33, 2.0, name="val/loss"),
        entries(0.45, 0.33, 2.0, name="accuracy"),
        entries(0.45, 0.33, 2.0, bits=(8, 8, 4)),
        entries(0.45, 0.33, 2.0, phases=("float", "float", "final")),
        entries(0.45, 0.33, 2.0, phases=("quantize", "quantize", "frozen")),
        [],
    ],
    ids=[
        "little",
        "negative",
        "unknown",
        "validation",
        "no loss",
        "fewer bits",
        "float before",
        "not frozen",
        "nothing",
    ],
)
def test_what_freezing_did_not_raise_is_not_judged(told):
    assert diverged(NETWORK, told) == []


def test_without_batch_norm_there_is_nothing_to_freeze():
    assert diverged(nn.Linear(2, 2), entries(0.45, 0.33, 2.0)) == []
