import dataclasses
import io

from rich.console import Console

from qat.report.advice import Advice
from qat.report.records import Mismatch, RunRecord
from qat.report.sweep import SweepRow
from qat.report.tables import advice_table, certificate_line, run_table, sweep_table


def printed(renderable, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(renderable)
    return console.file.getvalue()


def test_a_run_is_shown_stage_by_stage():
    run = RunRecord(
        recipe="a[b]c",
        metrics={"float": {"accuracy": 0.99}, "integer": {"accuracy": 0.98}},
        size_bytes={"float": 4000, "integer": 1000},
    )
    text = printed(run_table(run))
    assert "a[b]c" in text  # no markup in names
    for part in ("99.00 %", "98.00 %", "4 kB", "1 kB", "4.00×"):
        assert part in text


def test_the_certificate_counts():
    run = RunRecord(float_ops=(), mismatches={"onnxruntime": Mismatch(0, 3600, 0)})
    assert printed(certificate_line(run)).split() == (
        "integer, equal operations on floats: 0; onnxruntime: 0 of 3,600 codes differ".split()
    )
    assert "not verified" in printed(certificate_line(RunRecord()))
    assert "NOT EQUAL" in printed(certificate_line(RunRecord(float_ops=("Conv",))))


def test_the_certificate_names_float_islands():
    run = RunRecord(float_ops=("Det a", "Max b"), islands=("pose",), mismatches={"onnxruntime": Mismatch(0, 36, 0)})
    assert printed(certificate_line(run)).split() == (
        "float islands operations on floats: 2 in float islands (pose); onnxruntime: 0 of 36 codes differ".split()
    )
    unequal = dataclasses.replace(run, mismatches={"onnxruntime": Mismatch(1, 36, 1)})
    assert "NOT EQUAL" in printed(certificate_line(unequal))


def test_advice_is_a_line_a_layer():
    text = printed(advice_table([Advice("head", "weights", 4, 19.46, "keep at 8 bits", "+1 kB")]))
    assert "head" in text and "4-bit weights" in text and "19.5" in text and "keep at 8 bits" in text


def test_a_sweep_fits_80_columns_with_a_star_on_the_front():
    rows = [
        SweepRow(
            f"quant.weight.bits={bits}",
            RunRecord(
                metrics={"float": {"accuracy": 0.99}, "integer": {"accuracy": accuracy}},
                size_bytes={"float": 8000, "integer": 1000 * bits},
                float_ops=(),
                mismatches={"onnxruntime": Mismatch(0, 10, 0)},
            ),
        )
        for bits, accuracy in ((2, 0.9), (4, 0.98), (8, 0.97))
    ]
    lines = printed(sweep_table([*rows, SweepRow("quant.weight.bits=16", error="no kernel.")])).splitlines()
    assert all(len(line.rstrip()) <= 80 for line in lines)
    assert [line.split()[:2] for line in lines if "weight.bits" in line] == [
        ["weight.bits=2", "*"],
        ["weight.bits=4", "*"],
        ["weight.bits=8", "–"],
        ["weight.bits=16", "–"],
    ]
    assert "failed" in next(line for line in lines if "bits=16" in line)
