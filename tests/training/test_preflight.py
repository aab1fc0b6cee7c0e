"""The preflight names widths, bytes, what stays in float, points never reached, and a rate that is too high."""

import torch
from torch import nn
from torch.nn import functional as F

import qat
from qat.training.preflight import describe, learning_rate_advice, preflight


def prepared(quant="w4a8", **options):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 9), nn.ReLU(), nn.Linear(9, 3))
    return network, qat.prepare(network, torch.ones(2, 10), quant, **options)


def row_of(text, layer):
    (line,) = [line for line in text.splitlines() if line.strip("│ ").startswith(f"{layer} ")]
    return [cell.strip() for cell in line.strip("│").split("│")]


def test_the_table_counts_weights_bits_and_bytes():
    _, handle = prepared()
    text = preflight(handle, qat.Schedule(), qat.Progress(total_epochs=10))
    assert row_of(text, "0") == ["0", "200", "8", "8", "200", "800"]
    assert row_of(text, "2") == ["2", "180", "4", "8", "90", "720"]
    assert row_of(text, "total")[-2:] == ["317", "1,628"]
    assert "nothing is left in float" in text
    assert "note:" not in text


def test_what_stays_in_float_and_what_is_never_reached_is_said():
    _, handle = prepared(qat.QuantConfig(rules=[qat.Rule("2", quantize=False)]), target=None)
    schedule = qat.Schedule(start=1, freeze_observers=30, freeze_batch_norm=30)
    text = preflight(handle, schedule, qat.Progress(total_epochs=10))
    assert "left in float: 2" in text
    assert "note: schedule.freeze_observers is 30, but the run ends at epoch 10" in text


def test_quantization_after_training_has_no_schedule():
    _, handle = prepared()
    text = preflight(handle, None, qat.Progress(total_epochs=10))
    assert "nothing is left in float" in text
    assert "schedule:" not in text and "note:" not in text


def test_points_in_words():
    ladder = {0: 8, 0.5: 4, 0.6: 2}
    schedule = qat.Schedule(start=0.1, freeze_observers=5, freeze_batch_norm="700 steps", weight_bits=ladder)
    phases = "quantization from 10% of the run; observers frozen at epoch 5; batch norm frozen at 700 steps"
    assert describe(schedule, 2, 8) == (
        f"{phases}; weights 8 bits from epoch 0, 4 bits from 50% of the run, 2 bits from 60% of the run"
    )
    # the width in force is the larger of the ladder's and the config's
    assert describe(schedule, 4, 8) == f"{phases}; weights 8 bits from epoch 0, 4 bits from 50% of the run"
    assert describe(schedule, 8, 8) == f"{phases}; weights 8 bits from epoch 0"


def test_a_rate_that_moves_weights_too_far_gets_a_number_to_try():
    network, handle = prepared()
    inputs = torch.linspace(-1, 1, 40).view(4, 10)
    assert "no gradients to judge it by" in learning_rate_advice(handle, 0.1)
    F.cross_entropy(network(inputs), torch.tensor([0, 1, 2, 0])).backward()
    assert "learning rate 0.001 fits" in learning_rate_advice(handle, 1e-3)
    advice = learning_rate_advice(handle, 1e3)
    assert "learning rate 1000 moves the weights of" in advice
    lower = float(advice.split("lower it to about ")[1].split(",")[0])
    assert 0 < lower < 1e3
