from qat.report.figures.training import sqnr_over_time, training_curves, widths
from qat.report.records import EpochRecord, RunRecord


def test_nothing_is_drawn_without_records():
    assert training_curves([]) is None
    assert widths([], RunRecord()) is None
    assert sqnr_over_time([], RunRecord()) is None
    assert training_curves([EpochRecord(0, "float")]) is None
    assert sqnr_over_time([EpochRecord(0, "float")], RunRecord()) is None


def test_one_epoch_is_enough():
    history = [EpochRecord(0, "final", metrics={"val/loss": 1.0}, learning_rate=0.0, sqnr_db={"a": 20.0})]
    for drawn in (training_curves(history), widths(history, RunRecord()), sqnr_over_time(history, RunRecord())):
        assert drawn.startswith(b"\x89PNG")


def test_resumed_histories_with_gaps_and_unknown_phases_are_drawn():
    history = [
        EpochRecord(3, "float"),
        EpochRecord(7, "", metrics={"val/loss": 1.0}),
        EpochRecord(8, "x", weight_bits=4),
    ]
    for drawn in (training_curves(history), widths(history, RunRecord())):
        assert drawn.startswith(b"\x89PNG")
