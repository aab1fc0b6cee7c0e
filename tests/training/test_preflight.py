"""The preflight names widths, bytes, what stays in float, points never reached, and a rate that is too high."""

import pytest
import torch
from torch import nn

import qat
from qat.training.preflight import (
    describe,
    learning_rate_advice,
    preflight,
    quantization_steps,
    quantized_weights,
)


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
    assert (
        "nothing is left in float\ngrids: weights signed symmetric per_channel, activations unsigned affine\n" in text
    )
    assert "note:" not in text


def test_what_stays_in_float_and_what_is_never_reached_is_said():
    _, handle = prepared(qat.QuantConfig(rules=[qat.Rule("2", quantize=False)]), target=None)
    schedule = qat.Schedule(start=1, freeze_observers=30, freeze_batch_norm=30)
    text = preflight(handle, schedule, qat.Progress(total_epochs=10))
    assert "left in float: 2" in text
    assert "note: schedule.freeze_observers is 30, but the run ends at epoch 10" in text


def test_what_becomes_a_float_island_is_said():
    _, handle = prepared(qat.QuantConfig(rules=[qat.Rule("2", quantize=False)]))
    text = preflight(handle, None, qat.Progress(total_epochs=10))
    assert row_of(text.partition("total")[0], "2") == ["2", "189", "float", "8", "756", "756"]
    assert row_of(text, "total")[-2:] == ["983", "1,664"]  # 200 + 756 + 27 bytes; 4 * (200 + 27) + 756
    assert "left in float, as islands between integers: 2 (linear); the file will not be integer" in text


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


def test_an_update_is_measured_in_shares_of_the_weights_or_of_their_step():
    before = {"a": torch.full((2, 2), 2.0), "b": torch.tensor([0.0, 0.0])}
    after = {"a": torch.full((2, 2), 2.02), "b": torch.tensor([0.03, -0.03])}
    # a moves by 0.02 of 2, b by 0.03 of a step of 1.5, which is larger than its weights
    told = learning_rate_advice(before, after, {"a": 0.1, "b": 1.5}, 0.01)
    assert told == "learning rate 0.01 fits: the fastest layer, b, moves by 2.00% of its size per update."
    # b by 0.03 of a step of 0.25: 12 %, more than 5 %, which 5/12 of the rate would make
    told = learning_rate_advice(before, after, {"a": 0.1, "b": 0.25}, 0.012)
    assert told == (
        "learning rate 0.012 moves the weights of b by 12% of their size at once; "
        "lower it to about 0.005, or keep b at more bits."
    )
    # a rate that is a little too high is told a lower one, not itself
    told = learning_rate_advice(before, after, {"a": 0.1, "b": 0.59}, 0.00297)
    assert told.endswith("lower it to about 0.0029, or keep b at more bits.")


def test_an_update_that_was_skipped_or_overflowed_or_of_nothing():
    weights = {"a": torch.ones(2)}
    assert learning_rate_advice(weights, weights, {"a": 0.1}, 0.01) is None
    assert learning_rate_advice(weights, {"a": torch.tensor([1.0, torch.nan])}, {"a": 0.1}, 3.0) == (
        "learning rate 3 makes the weights of a infinite or NaN at once; lower it."
    )
    assert "no quantized weight is trained" in learning_rate_advice({}, weights, {"a": 0.1}, 0.01)


def test_weights_of_half_precision_are_compared_in_float32():
    before, after = {"a": torch.full((4,), 300.0).half()}, {"a": torch.full((4,), 306.0).half()}
    assert "moves by 2.00% of its size" in learning_rate_advice(before, after, {"a": 0.1}, 0.01)


def test_weights_and_steps_go_by_the_names_of_their_layers():
    network, handle = prepared()
    assert quantized_weights(handle) == {} and quantization_steps(handle) == {}  # nothing has run yet
    network(torch.linspace(-1, 1, 40).view(4, 10))
    assert {layer: weight is network[int(layer)].weight for layer, weight in quantized_weights(handle).items()} == {
        "0": True, "2": True, "4": True,
    }  # fmt: skip
    steps = quantization_steps(handle)
    assert set(steps) == {"0", "2", "4"}
    # the first layer has 8 bits per output channel: symmetric from its largest weight
    assert steps["0"] == pytest.approx(float(network[0].weight.detach().abs().amax(1).mean() / 127), rel=1e-6)
