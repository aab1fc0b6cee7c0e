import importlib.util
import json
import re
import shutil
import subprocess
import sys

import pytest

from qat.errors import MissingExtraError, ProgramError, ReportError
from qat.report import write

PICTURES = [
    "bits_over_time",
    "size_and_latency",
    "sqnr_over_time",
    "sqnr_per_layer",
    "training_curves",
    "weight_histograms",
]


def test_a_run_gets_a_page_and_its_pictures(run_dir):
    path = write(run_dir)
    assert path == run_dir / "integer" / "report.html"
    assert sorted(file.stem for file in (run_dir / "plots").iterdir()) == PICTURES
    page = path.read_text()
    assert page.count('src="data:image/png;base64,') == len(PICTURES)
    for text in ("digits_cnn", "98.61 %", "4.00×", "2.00×", "integer, equal code for code", "keep at 8 bits", "3,600"):
        assert text in page
    assert "'quant.rules=[{name: &#34;head&#34;, weight_bits: 8}]'" in page.replace("&#39;", "'")
    assert 'class="missing"' not in page


def test_the_page_needs_no_network_and_holds_no_path(run_dir):
    page = write(run_dir).read_text()
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", page)
    assert "http://" not in page and "https://" not in page and "<script" not in page
    assert str(run_dir) not in page


def test_equal_runs_give_equal_bytes_wherever_they_lie(run_dir, tmp_path):
    other = tmp_path / "elsewhere" / "copy"
    shutil.copytree(run_dir, other)
    assert write(run_dir).read_bytes() == write(other).read_bytes()
    for name in PICTURES:
        assert (run_dir / "plots" / f"{name}.png").read_bytes() == (other / "plots" / f"{name}.png").read_bytes()


def test_what_is_missing_is_said_and_its_old_picture_removed(run_dir):
    write(run_dir)
    (run_dir / "integer" / "history.json").unlink()
    (run_dir / "integer" / "program.safetensors").unlink()
    page = write(run_dir).read_text()
    assert sorted(file.stem for file in (run_dir / "plots").iterdir()) == ["size_and_latency", "sqnr_per_layer"]
    assert page.count('class="missing"') == 4
    assert "No training curves: integer/history.json is missing" in page
    assert "No histograms: integer/program.json or integer/program.safetensors is missing" in page


def test_a_report_with_nothing_in_it_still_makes_a_page(tmp_path):
    (tmp_path / "integer").mkdir()
    (tmp_path / "integer" / "report.json").write_text("{}")
    page = write(tmp_path).read_text()
    assert "not verified" in page
    assert "No backend was compared" in page
    assert list((tmp_path).glob("plots/*")) == []


def test_names_are_escaped(run_dir, report_data):
    report_data["recipe"] = "<script>alert(1)</script>"
    report_data["layers"][1]["name"] = '<img src=x onerror="1">'
    report_data["conditions"] = {"<b>": "</dl>"}
    report_data["float_ops"] = ["<i>Conv</i>"]
    report_data["mismatches"] = {"<u>": {"differing": 1, "total": 2}}
    (run_dir / "integer" / "report.json").write_text(json.dumps(report_data))
    page = write(run_dir).read_text()
    for markup in ("<script", "<img src=x", "<b>&", "<b><", "<i>Conv", "<u>"):
        assert markup not in page
    assert "not an equal integer file" in page


def test_a_page_names_the_float_islands(run_dir, report_data):
    report_data |= {"float_ops": ["Det codes/<b>"], "islands": ["pose<i>"]}
    report_data["island_codes"] = {"differing": 3, "total": 90, "max_lsb": 1}
    (run_dir / "integer" / "report.json").write_text(json.dumps(report_data))
    page = write(run_dir).read_text()
    assert "equal, with 1 float island<" in page and "not an equal integer file" not in page
    assert "<li>pose&lt;i&gt;</li>" in page
    assert "3 of their own 90 codes are not the program's, by at most 1." in page


def test_names_of_any_script_and_dollar_signs_are_drawn(run_dir, report_data):
    report_data["layers"][0]["name"] = "层.$x^$"
    (run_dir / "integer" / "report.json").write_text(json.dumps(report_data))
    assert "层.$x^$" in write(run_dir).read_text()


def test_damaged_files_are_errors_and_leave_the_old_page(run_dir):
    before = write(run_dir).read_bytes()
    (run_dir / "integer" / "program.json").write_text("{")
    with pytest.raises(ProgramError):
        write(run_dir)
    (run_dir / "integer" / "history.json").write_text("{")
    with pytest.raises(ReportError, match="history.json is damaged"):
        write(run_dir)
    assert (run_dir / "integer" / "report.html").read_bytes() == before
    assert not list(run_dir.rglob("*.tmp"))


def test_a_directory_without_a_report_is_refused(tmp_path):
    with pytest.raises(ReportError, match="report.json is missing"):
        write(tmp_path)


def test_without_the_extra_the_error_names_it(run_dir, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "matplotlib" else found(name))
    with pytest.raises(MissingExtraError, match=r'a report needs matplotlib; .*pip install "lightning-qat\[report\]"'):
        write(run_dir)


def test_importing_the_reports_loads_neither_matplotlib_nor_jinja2():
    code = "import sys, qat.report, qat.report.tables; sys.exit(bool({'matplotlib', 'jinja2'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
