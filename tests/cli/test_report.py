import json

import pytest

from qat.cli.report import main


@pytest.fixture
def small_run(tmp_path):
    """A run's directory with the least a report has to say."""
    folder = tmp_path / "sweep" / "bits=4" / "integer"
    folder.mkdir(parents=True)
    report = {
        "recipe": "digits_cnn",
        "metrics": {"integer": {"accuracy": 0.98}},
        "size_bytes": {"float": 8000, "integer": 2000},
        "layers": [{"name": "head", "weight_bits": 4, "weights": 100, "bytes": 50, "sqnr_db": 18.0}],
    }
    (folder / "report.json").write_text(json.dumps(report))
    return folder.parent


def test_a_run_is_reported_anew(small_run, capsys, pictures):
    assert main([str(small_run)]) == 0
    output = capsys.readouterr().out
    assert "98.00 %" in output and "keep at 8 bits" in output
    assert str(small_run / "integer" / "report.html") in output
    assert (small_run / "integer" / "report.html").exists()
    assert (small_run / "plots" / "sqnr_per_layer.png").exists()


def test_a_sweep_is_gathered_and_its_failures_are_told(small_run, capsys):
    sweep = small_run.parent
    (sweep / "bits=16").mkdir()
    (sweep / "bits=16" / "failed.json").write_text('{"error": "no kernel of [16] bits; choose 2 to 8."}')
    assert main([str(sweep)]) == 0
    output = capsys.readouterr().out
    assert "bits=16 failed: no kernel of [16] bits; choose 2 to 8." in output
    assert (sweep / "sweep.csv").read_text().count("\n") == 3
    assert (sweep / "pareto.png").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "does not exist"), ("", "is damaged (not json"), ('{"layers": 3}', "layers is not a list")],
)
def test_what_cannot_be_reported_is_one_line_and_exit_code_1(tmp_path, content, message, capsys):
    directory = tmp_path / "run"
    if content is not None:
        (directory / "integer").mkdir(parents=True)
        (directory / "integer" / "report.json").write_text(content)
    assert main([str(directory)]) == 1
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_an_empty_directory_is_refused(tmp_path, capsys):
    assert main([str(tmp_path)]) == 1
    assert "holds no integer/report.json" in capsys.readouterr().err
