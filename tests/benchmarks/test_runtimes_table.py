import dataclasses

import pytest
import runtimes_table
import torch
from omegaconf import OmegaConf
from runtime_cells import Cell, Remembered, Run
from runtimes_table import BEGIN, END, Row, document, entry, explanation, stored, table

import qat
from qat import verification
from qat.cli.check import compose_recipe
from qat.emitters import emitter_of
from qat.emitters.refused import Refusal, RefusedError
from qat.integer.program import IntegerProgram
from qat.models import DigitsCNN

CELL = Cell("p", "f", bytes=150, codes=3590, milliseconds=0.5, float_milliseconds=1.0, metrics={"accuracy": 0.985})
ROW = Row("digits_w8a8", "DigitsCNN", "w8a8", "5 epochs", weight_bytes=100.0, float_metrics={"accuracy": 0.99})


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """What qat-train leaves of a digits_cnn: here with random weights, and 24 test images."""
    folder = tmp_path_factory.mktemp("runs") / "digits_w4a8"
    config = compose_recipe("digits_cnn", ["model.network.width=4", "data.limit=24"])
    (folder / ".hydra").mkdir(parents=True)
    OmegaConf.save(config, folder / ".hydra" / "config.yaml")
    torch.manual_seed(0)
    network = DigitsCNN(width=4)
    qat.prepare(network, torch.rand(2, 1, 8, 8), "w4a8")
    network(torch.rand(16, 1, 8, 8))
    qat.convert(network.eval()).save(folder / "integer")
    return folder


@pytest.fixture
def counted(monkeypatch):
    """How often the interpreter ran a batch."""
    batches = []
    run = IntegerProgram.__call__

    def recorded(self, inputs):
        batches.append(len(next(iter(inputs.values()))))
        return run(self, inputs)

    monkeypatch.setattr(IntegerProgram, "__call__", recorded)
    return batches


def test_a_cell_is_what_the_file_is_on_the_test_split(run_folder):
    run = Run(run_folder)
    cell = run.cell("onnxruntime", None, repeats=1)
    assert (cell.refusal, cell.differing, cell.float_ops, cell.codes) == (None, 0, 0, 240)
    assert cell.bytes == (run_folder / "integer" / "model.onnx").stat().st_size
    assert 0 <= cell.metrics["accuracy"] <= 1 and cell.latency_ratio > 0
    assert (run.network, run.bits, run.training) == ("DigitsCNN", "w4a8", "30 epochs")
    # first and last layer at 8 bits; 9 weights a pair of channels
    assert run.weight_bytes == 4 * 9 + (4 * 4 * 9 + 4 * 8 * 9) / 2 + 8 * 10


def test_what_is_known_of_the_same_file_is_not_measured_again(run_folder):
    run = Run(run_folder)
    known = run.cell("onnxruntime", None, repeats=1)
    assert run.cell("onnxruntime", known) is known
    other = dataclasses.replace(known, file="another")
    assert run.cell("onnxruntime", other, repeats=1) is not other


def test_only_the_latency_of_what_is_known_is_measured_again(run_folder):
    run = Run(run_folder)
    known = run.cell("onnxruntime", None, repeats=0)
    assert known.milliseconds is None
    again = run.cell("onnxruntime", known, times=True, repeats=1)
    assert again.milliseconds > 0 and again.float_milliseconds > 0
    assert (again.codes, again.metrics, again.limit) == (known.codes, known.metrics, known.limit)


def test_fewer_samples_are_told_and_no_reason_to_measure_fewer_again(run_folder):
    some = Run(run_folder, limit=8).cell("onnxruntime", None, repeats=0)
    assert (some.codes, some.limit) == (80, 8)
    assert Run(run_folder, limit=4).cell("onnxruntime", some) is some
    whole = Run(run_folder).cell("onnxruntime", some, repeats=0)
    assert whole.limit is None and whole.codes == 240
    assert Run(run_folder, limit=8).cell("onnxruntime", whole) is whole
    rows = [dataclasses.replace(ROW, cells={"onnxruntime": some, "litert": whole})]
    assert "or on its first 8 samples where the numbers of codes tell so" in explanation(rows)


def test_the_interpreter_runs_every_batch_once_for_all_cells(run_folder, counted):
    run = Run(run_folder)
    run.cell("onnxruntime", None, repeats=1)
    times = len(counted)
    again = Run(run_folder)
    again.cell("onnxruntime", None, repeats=1)
    again.cell("onnxruntime", None, repeats=1)
    assert counted[times:].count(24) < 2 * counted[:times].count(24)


def test_results_of_the_interpreter_are_kept_where_that_is_asked_for(run_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(Remembered, "kept", tmp_path / "kept")
    first, second = (Run(run_folder).cell("onnxruntime", None, repeats=0) for _ in range(2))
    assert first == second
    assert len(list((tmp_path / "kept").iterdir())) == 1


def test_of_c_source_the_constants_in_flash_count(run_folder):
    cell = Run(run_folder).cell("c", None, repeats=1)
    header = (run_folder / "integer" / "model.h").read_text()
    assert (cell.refusal, cell.differing, cell.codes) == (None, 0, 240)
    assert f"#define MODEL_CONSTANT_BYTES {cell.bytes}\n" in header


def test_a_runtime_that_cannot_is_a_cell_with_its_reason(run_folder, monkeypatch):
    def refuse(program, path, options):
        raise RefusedError("onnxruntime", [Refusal("there is no kernel", "use another", kind="Conv", name="conv1")])

    monkeypatch.setattr(emitter_of("onnxruntime"), "emit", refuse)
    cell = Run(run_folder).cell("onnxruntime", None)
    assert cell.refusal == "onnxruntime cannot run this network: Conv 'conv1': there is no kernel; use another."
    assert cell.reasons == [["there is no kernel", "use another"]] and cell.latency_ratio is None


def test_a_failure_is_a_cell_as_well(run_folder, monkeypatch):
    monkeypatch.setattr(emitter_of("onnxruntime"), "emit", lambda *arguments: 1 / 0)
    cell = Run(run_folder).cell("onnxruntime", None)
    assert cell.refusal == "fails with ZeroDivisionError: division by zero"


def test_the_command_writes_document_and_cells_and_goes_on_from_them(run_folder, tmp_path, monkeypatch):
    path = tmp_path / "runtimes.md"
    monkeypatch.setattr(verification, "ACCUMULATED_SAMPLES", verification.ACCUMULATED_SAMPLES)  # which the command sets
    arguments = [str(run_folder.parent), "--runtimes", "onnxruntime", "--document", str(path)]
    assert runtimes_table.main(arguments) == 0
    assert "| DigitsCNN | w4a8 |" in path.read_text()
    rows = stored(path.with_suffix(".json"))
    assert list(rows) == ["digits_w4a8"] and rows["digits_w4a8"].cells["onnxruntime"].codes == 240
    monkeypatch.setattr(qat, "verify", None)  # what would measure again
    assert runtimes_table.main(arguments) == 0


def test_a_differing_code_is_an_exit_code(run_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(verification, "ACCUMULATED_SAMPLES", verification.ACCUMULATED_SAMPLES)
    monkeypatch.setattr(Run, "cell", lambda *arguments: dataclasses.replace(CELL, differing=1))
    arguments = [str(run_folder), "--runtimes", "onnxruntime", "--document", str(tmp_path / "runtimes.md")]
    assert runtimes_table.main(arguments) == 1


def test_an_entry_tells_codes_bytes_and_latency():
    reasons = {}
    row = dataclasses.replace(ROW, cells={"onnxruntime": CELL})
    assert entry(row, CELL, reasons) == "0 · 1.50 · 2.00"
    fewer = dataclasses.replace(CELL, codes=CELL.codes - 1)
    assert entry(row, fewer, reasons) == f"0 of {fewer.codes:,} · 1.50 · 2.00"
    assert entry(row, dataclasses.replace(CELL, differing=1234, milliseconds=None), reasons) == "1,234 · 1.50 · –"
    assert entry(row, dataclasses.replace(CELL, float_ops=2), reasons) == "0, 2 in float · 1.50 · 2.00"
    assert entry(row, None, reasons) == "–"
    assert not reasons


def test_reasons_are_numbered_once():
    reasons = {}
    why = [["there is no kernel", "use another"]]
    one, other, same = (
        Cell("p", refusal="no kernel for 'a' and 2", reasons=why),
        Cell("p", refusal="no scheme"),
        Cell("p", refusal="no kernel for 'b' and 13", reasons=why),
    )
    assert [entry(ROW, cell, reasons) for cell in (one, other, one, same)] == ["(1)", "(2)", "(1)", "(1)"]
    row = dataclasses.replace(ROW, cells={"onnxruntime": CELL, "litert": one})
    text = table([row])
    assert "| DigitsCNN | w8a8 | 5 epochs | 100 | 99.00 | 98.50 | 3,590 | 0 · 1.50 · 2.00 | (1) |" in text
    assert "- (1) no kernel for 'a' and 2\n" in text


def test_what_stands_around_the_table_is_left_alone(tmp_path):
    path = tmp_path / "runtimes.md"
    first = document([ROW], path)
    assert first.startswith("# ") and first.count(BEGIN) == first.count(END) == 1
    path.write_text(first.replace("# Networks in every runtime", "# My title") + "\nMore.\n")
    second = document([ROW, ROW], path)
    assert second.startswith("# My title") and second.endswith(f"{END}\n\nMore.\n")
    assert second.count("| DigitsCNN |") == 2
