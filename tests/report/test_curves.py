from qat.report.curves import (
    FLOAT_BITS,
    Span,
    learning_rates,
    metric_curves,
    phase_spans,
    sqnr_rows,
    widths_over_time,
)
from qat.report.records import EpochRecord, Layer, RunRecord


def test_the_split_is_a_word_of_the_logged_name():
    history = [
        EpochRecord(0, "float", metrics={"train/loss": 2.0, "val_loss": 2.5, "accuracy/val": 0.5, "lr-SGD": 0.1}),
        EpochRecord(1, "final", metrics={"train/loss": 1.0}),
    ]
    assert metric_curves(history) == {
        "loss": {"train": [(0, 2.0), (1, 1.0)], "validation": [(0, 2.5)]},
        "accuracy": {"validation": [(0, 0.5)]},
    }


def test_of_step_and_epoch_twins_the_epoch_counts():
    history = [EpochRecord(0, "float", metrics={"train_loss_epoch": 1.5, "train_loss_step": 9.0, "train_loss": 3.0})]
    assert metric_curves(history) == {"loss": {"train": [(0, 1.5)]}}


def test_loss_and_accuracy_come_first():
    history = [EpochRecord(0, "float", metrics={"val/auroc": 1.0, "val/accuracy": 1.0, "val/loss": 1.0})]
    assert list(metric_curves(history)) == ["loss", "accuracy", "auroc"]


def test_phases_are_runs_of_epochs():
    history = [EpochRecord(epoch, phase) for epoch, phase in enumerate(["float", "quantize", "quantize", "final"])]
    assert phase_spans(history) == [Span("float", 0, 0), Span("quantize", 1, 2), Span("final", 3, 3)]
    assert phase_spans([]) == []


def test_widths_are_float_before_fake_quantization_and_the_layers_own_where_no_ladder_says_more():
    run = RunRecord(layers=(Layer("a", weight_bits=8, activation_bits=8), Layer("b", weight_bits=4, activation_bits=8)))
    history = [
        EpochRecord(0, "float"),
        EpochRecord(1, "observe", weight_bits=8),
        EpochRecord(2, "quantize", weight_bits=6),
        EpochRecord(3, "final"),
    ]
    assert widths_over_time(history, run) == [
        (0, FLOAT_BITS, FLOAT_BITS),
        (1, FLOAT_BITS, FLOAT_BITS),
        (2, 6, 8),
        (3, 4, 8),
    ]
    assert widths_over_time(history[3:], RunRecord()) == [(3, None, None)]


def test_sqnr_has_a_gap_where_it_was_not_measured():
    history = [EpochRecord(0, "float"), EpochRecord(1, "quantize", sqnr_db={"a": 30.0, "b": 20.0})]
    assert sqnr_rows(history, RunRecord()) == {"a": [None, 30.0], "b": [None, 20.0]}


def test_sqnr_is_in_the_order_of_the_network_with_its_inputs_first():
    names = ("a.output", "a.weight", "input.images", "z.output", "z.weight")
    history = [EpochRecord(0, "quantize", sqnr_db=dict.fromkeys(names, 20.0))]
    run = RunRecord(layers=(Layer("z"), Layer("a")))
    assert list(sqnr_rows(history, run)) == ["input.images", "z.weight", "z.output", "a.weight", "a.output"]


def test_learning_rates_leave_out_epochs_without_one():
    assert learning_rates([EpochRecord(0, "float", learning_rate=0.1), EpochRecord(1, "float")]) == [(0, 0.1)]
