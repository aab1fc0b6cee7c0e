"""Verification of files that are not integer."""

import json

import pytest
import torch
from torch import nn
from torchmetrics import Accuracy

import qat
from qat.errors import ConfigurationError
from qat.verification import RealReport


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(40, 32), nn.ReLU(), nn.Linear(32, 3), nn.ReLU(), nn.Linear(3, 3)).eval()


@pytest.fixture(scope="module")
def batches():
    torch.manual_seed(1)
    return [(torch.randn(20, 40), torch.randint(3, (20,))) for _ in range(2)]


def verified(network, batches, quant, path, **settings):
    program = qat.quantize(network, [batches[0][0]], quant=quant)
    qat.export(program, path)
    return program, qat.verify(program, path, batches, repeats=1, **settings)


@pytest.mark.parametrize(
    ("quant", "way"), [("w8-dynamic", "dynamic"), ("w3-weight-only", "weight-only"), ("fp16", "fp16")]
)
def test_no_such_file_counts_as_integer(quant, way, network, batches, tmp_path):
    metrics = {"accuracy": Accuracy(task="multiclass", num_classes=3)}
    program, report = verified(network, batches, quant, tmp_path / "model.onnx", metrics=metrics, float_module=network)
    assert isinstance(report, RealReport)
    assert (report.ok, report.as_exported, report.way, report.samples) == (False, True, way, 40)
    assert report.mismatch.differing == 0
    assert report.float_ops
    assert len(report.integer_ops) == (3 if quant == "w8-dynamic" else 0)
    assert set(report.metrics) == set(report.latency_ms) | {"float"} == {"exported", "float"}
    assert report.size_bytes["exported"] == (tmp_path / "model.onnx").stat().st_size
    assert 0 <= report.output_error["output"] < 0.05
    assert f"NOT INTEGER ({way})" in str(report)
    content = json.loads(json.dumps(report.to_dict()))
    assert (content["ok"], content["as_exported"], content["way"]) == (False, True, way)


def test_bits_that_a_container_adds_are_told(network, batches, tmp_path):
    _, report = verified(network, batches, "w3-weight-only", tmp_path / "model.onnx")
    assert report.weight_bits == {"3": 4, "8": 8}
    assert "4 bits each in the file" in str(report)


def test_dynamic_files_give_the_outputs_of_their_program(network, batches, tmp_path):
    _, report = verified(network, batches, "w8-dynamic", tmp_path / "model.onnx")
    assert report.output_error == {"output": 0.0}


def test_the_prepared_network_stands_beside_it(network, batches, tmp_path):
    handle = qat.prepare(network, batches[0][0], "w4-weight-only")
    try:
        network.train()(batches[0][0])
        network.eval()
        program = qat.convert(network)
        qat.export(program, tmp_path / "model.onnx")
        metrics = {"accuracy": Accuracy(task="multiclass", num_classes=3)}
        report = qat.verify(program, tmp_path / "model.onnx", batches, network, metrics=metrics, repeats=0)
    finally:
        handle.remove()
    assert set(report.metrics) == {"exported", "fake_quant"}
    assert report.latency_ms == {}


def test_there_are_batches_and_one_file(network, batches, tmp_path):
    program, _ = verified(network, batches, "fp16", tmp_path / "model.onnx")
    with pytest.raises(ConfigurationError, match="there are no batches"):
        qat.verify(program, tmp_path / "model.onnx", [])
    with pytest.raises(ConfigurationError, match="c runs integer files only; verify the file of onnxruntime"):
        qat.verify(program, tmp_path / "model.onnx", batches, runtime="c")
