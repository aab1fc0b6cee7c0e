import importlib.util
import json

import pytest
import torch
from torch import nn

import qat
from qat.errors import ExportError
from qat.training import delivery
from qat.training.delivery import deliver
from qat.training.history import History
from qat.verification import FileReport, Mismatch, VerificationReport


@pytest.fixture
def handle():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    prepared = qat.prepare(network, torch.randn(8, 4), "w8a8")
    network(torch.randn(8, 4))
    return prepared


def batches():
    return [torch.randn(5, 4, generator=torch.Generator().manual_seed(seed)) for seed in range(10)]


def test_a_file_is_delivered_for_every_runtime_of_the_target(handle, tmp_path):
    handle.remove()
    both = qat.prepare(handle.module, torch.randn(8, 4), "w8a8", target=["onnxruntime", "c"])
    handle.module(torch.randn(8, 4))
    _, report = deliver(both, tmp_path, both.target, batches(), History())
    assert report.ok and list(report.files) == ["onnxruntime", "c"]
    assert {"model.onnx", "model.c", "model.h"} <= {path.name for path in tmp_path.iterdir()}
    content = json.loads((tmp_path / "certificate.json").read_text())
    assert set(content["files"]) == {"onnxruntime", "c"} and content["data"] == {"samples": 40, "split": "validation"}


def test_the_export_is_verified_and_the_mode_of_the_network_stays(handle, tmp_path):
    program, report = deliver(handle, tmp_path / "integer", "onnxruntime", batches(), History())
    assert report.ok and report.samples == 5 * delivery.VERIFIED_BATCHES
    assert handle.module.training
    assert torch.equal(qat.IntegerProgram.load(tmp_path / "integer")(batches()[0]), program(batches()[0]))


@pytest.mark.parametrize(
    ("mismatch", "float_ops", "found"),
    [(Mismatch(2, 10, 1), (), "differ {'onnxruntime': 2}"), (Mismatch(0, 10, 0), ("Conv first",), "Conv first")],
)
def test_a_file_that_verification_finds_unequal_is_taken_away(
    handle, tmp_path, monkeypatch, mismatch, float_ops, found
):
    def verify_files(program, files, *arguments, **keywords):
        entry = FileReport("model.onnx", 1, mismatch, float_ops)
        sizes = {"float": 4, "integer": 1}
        return VerificationReport(5, {"onnxruntime": mismatch}, float_ops, sizes, files={"onnxruntime": entry})

    monkeypatch.setattr(delivery, "verify_files", verify_files)
    with pytest.raises(ExportError, match=found):
        deliver(handle, tmp_path, "onnxruntime", batches(), History())
    assert not (tmp_path / "model.onnx").exists() and not (tmp_path / "certificate.json").exists()
    assert (tmp_path / "report.json").is_file() and (tmp_path / "program.json").is_file()


def test_a_fake_quantized_network_that_differs_is_reported_only(handle, tmp_path):
    report = VerificationReport(5, {"fake_quant": Mismatch(1, 10, 1)}, (), {"float": 4, "integer": 1})
    delivery.refuse_unequal(report, {})


def test_without_the_packages_that_draw_it_the_page_is_left_out_and_that_is_said(handle, tmp_path, monkeypatch, capsys):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "jinja2" else found(name))
    deliver(handle, tmp_path, "onnxruntime", batches(), History())
    assert (tmp_path / "model.onnx").is_file() and not (tmp_path / "report.html").exists()
    assert 'pip install "lightning-qat[report]"' in capsys.readouterr().err


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_weight_that_is_not_finite_is_named_and_nothing_of_an_earlier_run_is_left(handle, tmp_path, bad, pictures):
    deliver(handle, tmp_path, "onnxruntime", batches(), History())
    with torch.no_grad():
        handle.module[2].weight[1, 0] = bad
    (tmp_path / "trained.ckpt").write_bytes(b"kept")
    with pytest.raises(
        ExportError, match="2.weight holds 1 NaN or infinite of 6 values, so nothing is exported; lower"
    ):
        deliver(handle, tmp_path, "onnxruntime", batches(), History())
    assert {path.name for path in tmp_path.iterdir()} == {"trained.ckpt", "plots"}
    assert (tmp_path / "trained.ckpt").read_bytes() == b"kept"


def test_every_part_keeps_its_own_mode(handle, tmp_path):
    handle.module[0].eval()
    deliver(handle, tmp_path, "onnxruntime", batches(), History())
    assert [part.training for part in handle.module.modules()] == [True, False, True, True]


def test_a_buffer_may_hold_infinity_but_a_running_statistic_may_not():
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    network.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
    delivery.refuse_not_finite(network)
    network[1].running_var[1] = torch.nan
    with pytest.raises(ExportError, match="1.running_var holds 1 NaN or infinite of 2 values"):
        delivery.refuse_not_finite(network)


def test_the_report_has_every_stage_of_a_metric_measured_or_not(handle, tmp_path):
    deliver(handle, tmp_path, "onnxruntime", batches(), History())
    assert json.loads((tmp_path / "report.json").read_text())["metrics"] == {
        "float": {},
        "fake_quant": {},
        "integer": {},
    }


@pytest.fixture
def normalized():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 3), nn.Softmax(dim=1))
    prepared = qat.prepare(network, torch.randn(8, 4), "w8a8")
    network(torch.randn(8, 4))
    return prepared


def test_the_report_tells_what_integers_cost_where_islands_were_possible(normalized, tmp_path):
    _, report = deliver(normalized, tmp_path, "onnxruntime", batches(), History())
    assert report.ok and report.islands == () and report.island_codes is None
    content = json.loads((tmp_path / "report.json").read_text())
    assert set(content["nonlinear_ms"]) == {"integer", "float_island"} and content["float_ops"] == []


def test_float_islands_are_delivered_but_not_called_integer(normalized, tmp_path):
    program, report = deliver(normalized, tmp_path, "onnxruntime", batches(), History(), "float_island")
    assert (tmp_path / "model.onnx").is_file()
    assert not report.ok and report.as_exported
    assert report.islands == tuple(
        op.name for op in program.operations if type(op).__name__ in ("Normalize", "Softmax")
    )
    assert len(report.islands) == 2 and report.mismatches["onnxruntime"].differing == 0
    assert report.island_codes.max_lsb <= 1 and "2 operations are float islands" in str(report)
    content = json.loads((tmp_path / "report.json").read_text())
    assert content["ok"] is False and content["float_ops"] and content["islands"] == list(report.islands)


def test_a_network_without_such_operations_has_no_such_cost(handle, tmp_path):
    _, report = deliver(handle, tmp_path, "onnxruntime", batches(), History(), "float_island")
    assert report.ok and report.nonlinear_ms == {}
