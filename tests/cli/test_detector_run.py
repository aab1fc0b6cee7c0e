"""A recipe whose network has several outputs and whose targets are boxes, from the command to the verified file."""

import json

import pytest
import torch

import qat
from qat.cli import parts
from qat.models.boxes import detections_of, points_of


@pytest.fixture(scope="module")
def detector_run(tmp_path_factory, qat_train):
    folder = tmp_path_factory.mktemp("detector")
    few = ("data.limit=32", "data.batch_size=8")
    result = qat_train(folder, "-cn", "shapes_detector_w8a8", "hydra.run.dir=run", *few)
    assert result.returncode == 0, result.stderr
    assert "operations on floats: 0" in result.stdout
    return folder / "run"


def test_the_file_is_the_program_and_what_was_trained_code_for_code(detector_run):
    report = json.loads((detector_run / "integer" / "report.json").read_text())
    assert report["ok"] and report["split"] == "test" and report["samples"] == 32
    points = 8 * 8 + 4 * 4
    assert {name: entry["differing"] for name, entry in report["mismatches"].items()} == {
        "onnxruntime": 0,
        "fake_quant": 0,
    }
    assert report["mismatches"]["onnxruntime"]["total"] == 32 * points * (5 + 4)


def test_its_precision_is_that_of_the_trained_network(detector_run):
    metrics = json.loads((detector_run / "integer" / "report.json").read_text())["metrics"]
    assert {stage: set(values) for stage, values in metrics.items()} == {
        stage: {"map"} for stage in ("float", "fake_quant", "integer")
    }
    assert metrics["integer"] == metrics["fake_quant"] and 0 <= metrics["integer"]["map"] <= 1


def test_what_it_finds_is_drawn_for_the_report(detector_run):
    assert (detector_run / "plots" / "predictions.png").read_bytes().startswith(b"\x89PNG")
    assert 'id="predictions"' in (detector_run / "integer" / "report.html").read_text()


def test_boxes_are_made_of_what_the_file_gives(detector_run):
    """As a user of the file does, without the network."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(detector_run / "integer" / "model.onnx"))
    data = parts.data_of(parts.saved_config(detector_run))
    data.setup("test")
    images, _ = next(iter(data.test_dataloader()))
    names = [output.name for output in session.get_outputs()]
    assert names == ["logits", "distances"]
    values = session.run(names, {session.get_inputs()[0].name: images.numpy()})
    outputs = {name: torch.from_numpy(value) for name, value in zip(names, values, strict=True)}
    expected = qat.IntegerProgram.load(detector_run / "integer")(images)
    found, wanted = (detections_of(each, points_of(64, (8, 16))) for each in (outputs, expected))
    assert torch.equal(found.boxes, wanted.boxes) and torch.equal(found.kept, wanted.kept)
