import json

import pytest
import torch
import torchmetrics

from qat.emitters import export, stored_bytes
from qat.emitters.onnxruntime import emit_float
from qat.errors import ConfigurationError, ExportError
from qat.integer.builder import ProgramBuilder
from qat.integer.interpreter import run_real
from qat.integer.values import Grid, IndexRange, Weight, WeightGrid
from qat.verification import FileReport, Mismatch, VerificationReport, codes_of, verify, verify_files

BYTE = Grid(0.5, 128, 0, 255)


def classifier(inputs=("x",), structure="tensor"):
    codes = torch.tensor([[3, -2, 1], [-1, 2, 0]], dtype=torch.int8)
    builder = ProgramBuilder()
    values = [builder.input(name, (3,), BYTE) for name in inputs]
    total = values[0] if len(values) == 1 else builder.add("sum", *values, BYTE)
    weight = Weight(codes, WeightGrid(4, 16), torch.full((2,), 0.03125))
    builder.output("logits", builder.linear("fc", total, weight, BYTE))
    return builder.build(structure)


@pytest.fixture
def exported(tmp_path):
    program = classifier()
    export(program, tmp_path / "model.onnx")
    return program, tmp_path / "model.onnx"


def batches(count=3):
    generator = torch.Generator().manual_seed(0)
    sizes = [8] * (count - 1) + [3]
    return [(torch.randn(size, 3, generator=generator) * 8, torch.randint(0, 2, (size,))) for size in sizes]


def test_codes_are_recovered_from_real_outputs():
    assert codes_of(torch.tensor([-64.0, 0.0, 0.5, 0.74, 100.0]), BYTE).tolist() == [0, 128, 129, 129, 328]


def test_an_exported_program_verifies(exported):
    program, path = exported
    report = verify(program, path, batches(), repeats=3)
    assert report.ok
    assert report.samples == 19
    assert report.mismatches == {"onnxruntime": Mismatch(differing=0, total=38, max_lsb=0)}
    assert report.float_ops == ()
    assert report.size_bytes == {"float": 4 * 8, "integer": path.stat().st_size, "program": 3 + 8}
    assert set(report.latency_ms) == {"integer", "float"}
    assert min(report.latency_ms.values()) > 0
    assert {"onnxruntime", "session_options", "processor", "processor_features"} <= set(report.conditions)


def test_the_file_of_another_program_does_not_verify(exported):
    program, path = exported
    builder = ProgramBuilder()
    weight = Weight(
        torch.tensor([[3, -2, 2], [-1, 2, 0]], dtype=torch.int8), WeightGrid(4, 16), torch.full((2,), 0.03125)
    )
    builder.output("logits", builder.linear("fc", builder.input("x", (3,), BYTE), weight, BYTE))
    report = verify(builder.build(), path, batches(), repeats=0)
    assert not report.ok
    found = report.mismatches["onnxruntime"]
    assert 0 < found.differing <= 19
    assert found.max_lsb > 1
    assert report.latency_ms == {}


def test_the_fake_quantized_network_is_compared_but_does_not_decide(exported):
    program, path = exported

    def one_code_off(x):
        return program(x) + torch.tensor([0.0, 0.5])

    report = verify(program, path, batches(), module=one_code_off, repeats=0)
    assert report.mismatches["fake_quant"] == Mismatch(differing=19, total=38, max_lsb=1)
    assert report.ok


def test_metrics_are_computed_for_every_backend(exported):
    program, path = exported
    metrics = {"accuracy": torchmetrics.Accuracy(task="multiclass", num_classes=2)}

    def wrong(x):
        return -program(x)

    data = [(x, program(x).argmax(1)) for x, _ in batches()]
    report = verify(program, path, data, module=program, metrics=metrics, float_module=wrong, repeats=0)
    assert report.metrics["integer"] == {"accuracy": 1.0}
    assert report.metrics["fake_quant"] == {"accuracy": 1.0}
    assert report.metrics["float"]["accuracy"] < 0.5
    assert set(report.mismatches) == {"onnxruntime", "fake_quant"}
    assert not metrics["accuracy"].update_called


@pytest.mark.parametrize("structure", ["tuple", "dict"])
def test_several_inputs_and_other_structures(tmp_path, structure):
    program = classifier(("a", "b"), structure)
    path = tmp_path / "model.onnx"
    export(program, path)
    first, second = batches(2)[0][0], batches(2)[0][0].flip(0)
    as_tuple = verify(program, path, [(first, second)], module=lambda a, b: program((a, b)), repeats=0)
    as_dict = verify(program, path, [({"a": first, "b": second}, None)], module=lambda a, b: program((a, b)), repeats=0)
    assert as_tuple.ok and as_dict.ok
    assert as_tuple.mismatches["fake_quant"] == as_dict.mismatches["fake_quant"] == Mismatch(0, 16, 0)


def test_mistakes_are_told(exported):
    program, path = exported
    with pytest.raises(ConfigurationError, match="there are no batches"):
        verify(program, path, [])
    with pytest.raises(ConfigurationError, match="metrics need targets"):
        verify(program, path, [torch.zeros(1, 3)], metrics={"m": torchmetrics.MeanMetric()})
    with pytest.raises(ConfigurationError, match=r"call module.eval\(\)"):
        verify(program, path, batches(), module=torch.nn.Linear(3, 2))
    with pytest.raises(ConfigurationError, match="returns 2 tensors, the program 1"):
        verify(program, path, batches(), module=lambda x: (x, x), repeats=0)
    with pytest.raises(ConfigurationError, match="'1' of the float module is in train mode"):
        partly = torch.nn.Sequential(torch.nn.Linear(3, 2).eval(), torch.nn.ReLU())
        partly.training = False
        verify(program, path, batches(), float_module=partly)
    with pytest.raises(ConfigurationError, match="Linear that is not prepared; .* as float_module="):
        verify(program, path, batches(), module=torch.nn.Linear(3, 2).eval())
    with pytest.raises(ConfigurationError, match="give torchmetrics by name"):
        verify(program, path, batches(), metrics={"accuracy": max})
    per_class = torchmetrics.Accuracy(task="multiclass", num_classes=2, average=None)
    with pytest.raises(ConfigurationError, match="'accuracy' does not give one number"):
        verify(program, path, batches(), metrics={"accuracy": per_class}, repeats=0)
    with pytest.raises(ConfigurationError, match="'error' cannot be updated with the onnxruntime output"):
        verify(program, path, batches(), metrics={"error": torchmetrics.MeanSquaredError()}, repeats=0)


def test_regression_metrics_and_collections_are_taken(exported):
    program, path = exported
    data = [(x, program(x) + 1.0) for x, _ in batches()]
    metrics = torchmetrics.MetricCollection({"mse": torchmetrics.MeanSquaredError()})
    report = verify(program, path, data, module=program, metrics=metrics, repeats=0)
    assert report.metrics == {"integer": {"mse": 1.0}, "fake_quant": {"mse": 1.0}}


def test_a_file_with_other_inputs_or_outputs_is_named_as_that_of_another_program(exported, tmp_path):
    program, path = exported
    export(classifier(("a", "b"), "dict"), tmp_path / "other.onnx")
    with pytest.raises(
        ExportError, match=r"other.onnx is the file of another program: it makes logits \(2,\) of a \(3,\)"
    ):
        verify(program, tmp_path / "other.onnx", batches())


def test_a_float_file_of_the_same_network_is_not_ok(exported, tmp_path):
    program, _ = exported
    emit_float(program, tmp_path / "float.onnx")
    report = verify(program, tmp_path / "float.onnx", batches(), repeats=0)
    assert not report.ok and report.float_ops


def test_each_batch_is_interpreted_once(exported, monkeypatch):
    program, path = exported
    runs = []
    monkeypatch.setattr(type(program), "__call__", lambda self, inputs: runs.append(1) or run_real(self, inputs))
    verify(program, path, batches(3), module=lambda x: run_real(program, x), repeats=0)
    assert len(runs) == 3


def test_a_report_is_plain_data_and_a_table(exported):
    program, path = exported
    report = verify(program, path, batches(), module=program, repeats=1)
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["ok"] is True
    assert plain["mismatches"]["onnxruntime"] == {"differing": 0, "total": 38, "max_lsb": 0}
    text = str(report)
    assert "verified on 19 samples: equal" in text
    assert "0 of 38" in text and "1 of 38" not in text
    for found, verdict, codes in (
        (Mismatch(1, 2, 3), "NOT EQUAL", "1 of 2, by at most 3"),
        (Mismatch(0, 2, 0), "NOT INTEGER", "0 of 2 "),
    ):
        entry = FileReport("model.onnx", 7, found, ("Conv c",))
        text = str(VerificationReport(1, {"onnxruntime": found}, ("Conv c",), {}, files={"onnxruntime": entry}))
        assert verdict in text and codes in text and "computes in floating point: Conv c" in text


def test_indices_are_verified_as_they_are(tmp_path):
    builder = ProgramBuilder()
    weight = Weight(torch.arange(12).reshape(4, 3).to(torch.int8), WeightGrid(8), torch.full((4,), 0.5))
    rows = builder.embedding("rows", builder.input("ids", (5,), IndexRange(4)), weight)
    builder.output("y", rows)
    builder.output("likely", builder.arg_max("argmax", rows, 2))
    program, path = builder.build("tuple"), tmp_path / "model.onnx"
    export(program, path)
    ids = torch.randint(0, 4, (7, 5), generator=torch.Generator().manual_seed(0))

    def one_index_off(ids):
        y, likely = program(ids)
        return y, torch.where(torch.arange(5) == 2, likely - 1, likely)

    report = verify(program, path, [(ids,)], one_index_off, repeats=1)
    assert report.ok and report.mismatches["onnxruntime"] == Mismatch(0, 7 * 5 * 3 + 7 * 5, 0)
    assert report.mismatches["fake_quant"] == Mismatch(7, 7 * 5 * 3 + 7 * 5, 1)
    assert set(report.latency_ms) == {"integer", "float"}


def test_islands_of_a_rule_are_named_and_what_is_behind_them_compared(tmp_path):
    builder = ProgramBuilder()
    x = builder.input("x", (3,), BYTE)
    y = builder.float_island("pose", "hypot", {"input": x, "other": builder.negate("minus", x)}, BYTE)
    weight = Weight(torch.tensor([[3, -2, 1]], dtype=torch.int8), WeightGrid(4, 16), torch.full((1,), 0.03125))
    builder.output("logits", builder.linear("fc", y, weight, BYTE))
    program = builder.build()
    export(program, tmp_path / "model.onnx")
    report = verify(program, tmp_path / "model.onnx", [torch.randn(40, 3) * 8], repeats=1)
    assert report.islands == ("pose",) and report.as_exported and not report.ok
    assert report.float_ops and all(" codes/pose" in node for node in report.float_ops)
    assert report.mismatches == {"onnxruntime": Mismatch(0, 40, 0)}
    assert report.island_codes.total == 120 and report.island_codes.max_lsb <= 1
    assert report.nonlinear_ms == {} and set(report.latency_ms) == {"integer", "float"}
    assert "float islands" in str(report) and "pose" in str(report)
    assert json.loads(json.dumps(report.to_dict()))["islands"] == ["pose"]


def test_other_codes_behind_an_island_of_a_rule_are_found(tmp_path):
    def program_with(scale):
        builder = ProgramBuilder()
        y = builder.float_island("root", "abs", {"input": builder.input("x", (3,), BYTE)}, BYTE)
        weight = Weight(torch.tensor([[3, -2, 1]], dtype=torch.int8), WeightGrid(4, 16), torch.full((1,), scale))
        builder.output("logits", builder.linear("fc", y, weight, BYTE))
        return builder.build()

    export(program_with(0.03125), tmp_path / "model.onnx")
    report = verify(program_with(0.0625), tmp_path / "model.onnx", [torch.randn(40, 3) * 8], repeats=0)
    assert report.mismatches["onnxruntime"].differing > 0 and not report.as_exported
    assert "NOT EQUAL" in str(report)


def test_files_of_several_runtimes_are_verified_in_one_pass(exported):
    program, path = exported
    calls = []

    def network(x):
        calls.append(len(x))
        return program(x)

    metrics = {"accuracy": torchmetrics.Accuracy(task="multiclass", num_classes=2)}
    data = [(x, program(x).argmax(1)) for x, _ in batches()]
    files = {"onnxruntime": path, "c": path.with_name("model.c")}
    export(program, files["c"], runtime="c")
    report = verify_files(program, files, data, metrics=metrics, float_module=network, repeats=2)
    assert report.ok and calls == [8, 8, 3]
    assert list(report.files) == ["onnxruntime", "c"]
    assert all(
        entry.mismatch == Mismatch(0, 38, 0) and entry.metrics == {"accuracy": 1.0} for entry in report.files.values()
    )
    assert report.files["c"].bytes == stored_bytes("c", files["c"]) < files["c"].stat().st_size
    assert report.files["onnxruntime"].bytes == path.stat().st_size
    assert report.mismatches == {"onnxruntime": Mismatch(0, 38, 0), "c": Mismatch(0, 38, 0)}
    assert report.accumulators["fc"] > 0
    lines = str(report).splitlines()
    assert lines[0].strip() == "verified on 19 samples: equal and integer"
    assert [line.split()[0] for line in lines if "0 of 38" in line] == ["onnxruntime", "c"]
    assert [line.split()[0] for line in lines[2:] if "1.0000" in line] == ["onnxruntime", "c", "float"]


def test_one_file_that_differs_is_enough(exported, tmp_path):
    program, path = exported
    builder = ProgramBuilder()
    weight = Weight(
        torch.tensor([[3, -2, 2], [-1, 2, 0]], dtype=torch.int8), WeightGrid(4, 16), torch.full((2,), 0.03125)
    )
    builder.output("logits", builder.linear("fc", builder.input("x", (3,), BYTE), weight, BYTE))
    export(builder.build(), tmp_path / "other.c", runtime="c")
    report = verify_files(program, {"onnxruntime": path, "c": tmp_path / "other.c"}, batches(), repeats=0)
    assert not report.ok and not report.as_exported
    assert report.files["onnxruntime"].ok and not report.files["c"].ok
    with pytest.raises(ConfigurationError, match="there are no files to verify"):
        verify_files(program, {}, batches())
