import csv
import json

import pytest

from qat.errors import ReportError
from qat.report import gather, write_sweep
from qat.report.records import RunRecord
from qat.report.sweep import COLUMNS, SweepRow, pareto_front, short_names


def point(name: str, size: float, accuracy: float) -> SweepRow:
    return SweepRow(name, RunRecord(metrics={"integer": {"accuracy": accuracy}}, size_bytes={"integer": size}))


@pytest.fixture
def sweep_dir(tmp_path, report_data):
    """Points of 2, 4 and 16 bits; the last failed, another was killed, a third is damaged."""
    for bits, accuracy, size in ((2, 0.93, 1000), (4, 0.98, 1500)):
        folder = tmp_path / f"quant.weight.bits={bits},seed=1" / "integer"
        folder.mkdir(parents=True)
        changed = {"metrics": {"integer": {"accuracy": accuracy}}, "size_bytes": {"float": 8000, "integer": size}}
        (folder / "report.json").write_text(json.dumps(report_data | changed))
    failed = tmp_path / "quant.weight.bits=16,seed=1"
    failed.mkdir()
    (failed / "failed.json").write_text('{"error": "16 bits have no kernel, choose 2 to 8."}')
    (tmp_path / "quant.weight.bits=3,seed=1" / ".hydra").mkdir(parents=True)
    damaged = tmp_path / "quant.weight.bits=5,seed=1" / "integer"
    damaged.mkdir(parents=True)
    (damaged / "report.json").write_text("{")
    return tmp_path


def test_every_point_is_a_row_failed_or_not_in_natural_order(sweep_dir):
    rows = gather(sweep_dir)
    assert [row.name for row in rows] == [f"quant.weight.bits={bits},seed=1" for bits in (2, 3, 4, 5, 16)]
    assert [row.score for row in rows] == [0.93, None, 0.98, None, None]
    assert [row.size for row in rows] == [1000, None, 1500, None, None]
    assert rows[1].error == "ended without a report; run this point again."
    assert rows[3].error.startswith("integer/report.json is damaged (not json")
    assert rows[4].error == "16 bits have no kernel, choose 2 to 8."


def test_a_failure_outweighs_the_report_of_an_earlier_try(sweep_dir):
    (sweep_dir / "quant.weight.bits=4,seed=1" / "failed.json").write_text('{"error": "out of memory."}')
    assert gather(sweep_dir)[2].error == "out of memory."


@pytest.mark.parametrize("content", ["", "[]", '{"error": 3}', '{"error": ""}'])
def test_a_damaged_failure_is_still_a_failure(tmp_path, content):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "failed.json").write_text(content)
    assert "failed" in gather(tmp_path)[0].error


def test_the_csv_has_full_precision_and_every_point(sweep_dir):
    write_sweep(sweep_dir)
    with (sweep_dir / "sweep.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [row["status"] for row in rows] == ["verified", "failed", "verified", "failed", "failed"]
    assert (rows[0]["integer"], rows[0]["integer_bytes"], rows[0]["size_ratio"]) == ("0.93", "1000", "8.0")
    assert (rows[0]["float_ops"], rows[0]["differing"], rows[0]["bits_per_weight"]) == ("0", "0", "5.0")
    assert (rows[1]["integer"], rows[1]["error"]) == ("", "ended without a report; run this point again.")


def test_equal_sweeps_give_equal_bytes(sweep_dir):
    def contents():
        write_sweep(sweep_dir)
        return [(sweep_dir / name).read_bytes() for name in ("sweep.csv", "pareto.png")]

    assert contents() == contents()


def test_a_sweep_in_which_all_failed_has_a_table_and_no_plot(sweep_dir):
    write_sweep(sweep_dir)
    for bits in (2, 4):
        (sweep_dir / f"quant.weight.bits={bits},seed=1" / "failed.json").write_text('{"error": "x."}')
    write_sweep(sweep_dir)
    assert not (sweep_dir / "pareto.png").exists()
    assert (sweep_dir / "sweep.csv").read_text().count("failed") == 5


def test_an_empty_a_missing_and_a_wrong_directory_are_refused(tmp_path):
    with pytest.raises(ReportError, match="holds no integer/report.json and no folders of a sweep"):
        gather(tmp_path)
    with pytest.raises(ReportError, match="does not exist; give the directory of a run or of a sweep"):
        gather(tmp_path / "nothing")
    (tmp_path / "file").write_text("")
    with pytest.raises(ReportError, match="is a file"):
        gather(tmp_path / "file")


def test_the_front_holds_what_no_smaller_point_equals():
    rows = [point("a", 10, 0.9), point("b", 20, 0.9), point("c", 20, 0.95), point("d", 30, 0.94), point("e", 40, 0.99)]
    assert [row.name for row in pareto_front([*reversed(rows), SweepRow("f", error="x")])] == ["a", "c", "e"]
    assert pareto_front([]) == []


def test_short_names_leave_out_what_all_share():
    names = ["quant.weight.bits=2,seed=1,model.net.width=8", "quant.weight.bits=4,seed=1,model.net.width=8"]
    assert short_names(names) == ["weight.bits=2", "weight.bits=4"]
    assert short_names(["0", "1"]) == ["0", "1"]
    assert short_names(["a.b.c=1"]) == ["b.c=1"]
    assert short_names(["x.a.b=1", "y.a.b=1"]) == ["x.a.b=1", "y.a.b=1"]
