from qat.report.figures.cost import size_and_latency
from qat.report.records import RunRecord


def test_nothing_is_drawn_without_size_and_latency():
    assert size_and_latency(RunRecord()) is None
    assert size_and_latency(RunRecord(size_bytes={"program": 1})) is None


def test_each_alone_and_a_slower_integer_file_are_drawn():
    for run in (
        RunRecord(size_bytes={"integer": 10}),
        RunRecord(latency_ms={"float": 1.0, "integer": 2.0}),
        RunRecord(size_bytes={"float": 40, "integer": 10}, latency_ms={"float": 2.0, "integer": 1.0}),
    ):
        assert size_and_latency(run).startswith(b"\x89PNG")
