import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qat.errors import ReportError
from qat.report.records import TAKEN_OUT, Layer, Mismatch, RunRecord, read_history, read_run
from qat.report.sweep import SweepRow, to_csv

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=8,
)


def written(tmp_path, content) -> object:
    path = tmp_path / "report.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_a_report_is_read_field_by_field(tmp_path, report_data):
    run = read_run(written(tmp_path, report_data))
    assert (run.recipe, run.seed, run.epochs, run.split) == ("digits_cnn", 1, 6, "test")
    assert run.metric == "accuracy"
    assert run.metric_of("integer") == 0.9861
    assert run.size_ratio == 4.0
    assert run.latency_ratio == 2.0
    assert run.float_ops == ()
    assert run.mismatches["fake_quant"] == Mismatch(differing=2, total=3600, max_lsb=1)
    assert run.conditions == {"threads": "1", "cpu": "avx512_vnni"}
    assert run.layers[1] == Layer("head", "Linear", 4, 8, 300, 150, 1200, 19.5, 36.0, 0.0)
    assert run.bits_per_weight == (100 * 8 + 300 * 4) / 400


def test_an_empty_report_has_everything_absent(tmp_path):
    run = read_run(written(tmp_path, {}))
    assert run == RunRecord()
    assert (run.metric, run.metric_of("integer"), run.size_ratio, run.bits_per_weight) == (None, None, None, None)


@pytest.mark.parametrize(
    ("change", "certified"),
    [
        ({}, True),
        ({"float_ops": ["Conv_3"]}, False),
        ({"float_ops": None}, None),
        ({"float_ops": ["Det_1"], "islands": ["pose"]}, False),
        ({"mismatches": {"onnxruntime": {"differing": 1, "total": 9}}}, False),
        ({"mismatches": {"fake_quant": {"differing": 1, "total": 9}}}, None),
        ({"mismatches": {"onnxruntime": {"differing": 0, "total": 0}}}, None),
    ],
)
def test_only_an_integer_file_that_was_compared_and_equal_is_certified(tmp_path, report_data, change, certified):
    assert read_run(written(tmp_path, report_data | change)).certified is certified


def test_nan_and_infinity_count_as_absent(tmp_path):
    text = '{"metrics": {"integer": {"accuracy": NaN}}, "layers": [{"name": "a", "sqnr_db": Infinity}]}'
    run = read_run(written(tmp_path, text))
    assert run.metrics == {"integer": {}}
    assert run.layers[0].sqnr_db is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not json"),
        ("[]", "it is not a mapping"),
        ({"layers": {}}, "layers is not a list"),
        ({"layers": [{"kind": "Conv"}]}, r"layers\[0\] has no name"),
        ({"layers": [{"name": "a", "weight_bits": "four"}]}, r"layers\[0\].weight_bits is 'four', not a number"),
        ({"layers": [{"name": "a", "weight_bits": 4.5}]}, r"weight_bits is 4.5, not an integer"),
        ({"metrics": {"float": {"accuracy": True}}}, "metrics.float.accuracy is True, not a number"),
        ({"mismatches": {"onnxruntime": {"total": 1}}}, "mismatches.onnxruntime lacks differing or total"),
        ({"recipe": 3}, "recipe is 3, not a text"),
        ({"size_bytes": {"float": 10**400}}, "size_bytes.float is an integer beyond any float"),
        ("[" * 100_000, "not json"),
    ],
)
def test_a_damaged_report_is_one_sentence_with_the_remedy(tmp_path, content, message):
    with pytest.raises(ReportError, match=message) as raised:
        read_run(written(tmp_path, content))
    assert "report.json is damaged" in str(raised.value)
    assert str(raised.value).endswith("train again.")
    assert "\n" not in str(raised.value)


def test_bytes_that_are_no_text_are_damage(tmp_path):
    (tmp_path / "report.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ReportError, match="damaged"):
        read_run(tmp_path / "report.json")


def test_conditions_read_as_words(tmp_path):
    conditions = {"features": ["avx2", "fma"], "options": {}, "extra": [], "threads": {"a": 1}}
    run = read_run(written(tmp_path, {"conditions": conditions}))
    assert run.conditions == {"features": "avx2, fma", "options": "none", "extra": "none", "threads": '{"a": 1}'}


def test_a_missing_report_is_an_error_and_a_missing_history_is_empty(tmp_path):
    with pytest.raises(ReportError, match="report.json is missing; finish the run"):
        read_run(tmp_path / "report.json")
    assert read_history(tmp_path / "history.json") == ()


def test_a_history_is_read_epoch_by_epoch(tmp_path, history_data):
    history = read_history(written(tmp_path, history_data))
    assert [record.phase for record in history] == ["float", "quantize", "quantize", "frozen", "final", "final"]
    assert history[0].weight_bits is None
    assert history[3].sqnr_db == {"head.weight": 20.0}
    assert history[3].clip_share == {"head.weight": 0.01}
    assert history[1].learning_rate == 0.005


def test_an_epoch_without_a_number_is_damage(tmp_path):
    with pytest.raises(ReportError, match=r"epochs\[0\] has no epoch"):
        read_history(written(tmp_path, {"epochs": [{"phase": "float"}]}))


@given(value=json_values, key=st.sampled_from(["metrics", "layers", "mismatches", "size_bytes", "float_ops", "seed"]))
def test_any_json_is_read_or_refused_but_never_crashes(tmp_path_factory, value, key):
    path = tmp_path_factory.mktemp("any") / "report.json"
    path.write_text(json.dumps({key: value}))
    try:
        read_run(path)
    except ReportError as error:
        assert "damaged" in str(error)


def test_weights_trained_for_integers_are_no_float_baseline():
    metrics = {"float": {"accuracy": 0.7}, "integer": {"accuracy": 0.9}}
    taken_out = RunRecord(metrics=metrics, conditions={"float_metrics": TAKEN_OUT})
    trained = RunRecord(metrics=metrics, conditions={"float_metrics": "trained, before quantization"})
    assert (taken_out.has_float_baseline, trained.has_float_baseline, RunRecord().has_float_baseline) == (
        False, True, False,
    )  # fmt: skip
    assert (taken_out.stage_labels["float"], trained.stage_labels["float"]) == ("quantization taken out", "float")
    rows = [SweepRow("a", taken_out), SweepRow("b", trained)]
    assert [line.split(",")[5] for line in to_csv(rows).splitlines()] == ["float", "", "0.7"]
