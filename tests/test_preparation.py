import logging
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import qat
from qat import preparation
from qat.emitters.refused import Refusal
from qat.errors import ConfigurationError, PreparationError
from qat.inject.handle import handle_of


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).eval()


@pytest.fixture
def refusing(monkeypatch):
    """LiteRT without convolutions."""

    def refusals(program):
        convolutions = [operation for operation in program.operations if type(operation).__name__ == "Conv"]
        return [Refusal.of(entry, "there is no kernel", "use Linear") for entry in convolutions]

    monkeypatch.setattr(preparation, "emitter_of", lambda runtime: SimpleNamespace(refusals=refusals))


@pytest.mark.parametrize("examples", [torch.randn(2, 3, 8, 8), torch.zeros(2, 3, 8, 8)])
@pytest.mark.parametrize("quant", ["w8a8", "w2a2"])
def test_what_a_runtime_cannot_run_is_refused_by_layer_before_training(refusing, examples, quant):
    module = network()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.raises(
        PreparationError, match=r"^litert cannot run this network: Conv '0' \(from .*:\d+\): there is no kernel; use"
    ):
        qat.prepare(module, examples, quant, target=["onnxruntime", "litert"])
    assert handle_of(module) is None
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


@pytest.mark.parametrize("runtime", ["pytorch", "web", "c", "litert", "tensorrt"])
def test_what_a_rule_leaves_in_float_is_refused_where_there_are_integers_alone(runtime):
    quant = qat.QuantConfig(rules=[qat.Rule("0", quantize=False)])
    with pytest.raises(
        PreparationError, match=rf"^{runtime} cannot run .*'0' \(from .*\): it is computed in real numbers"
    ):
        qat.prepare(network(), torch.randn(2, 3, 8, 8), quant, target=["onnxruntime", runtime])


def test_a_rehearsal_leaves_no_trace(monkeypatch):
    monkeypatch.setattr(preparation, "emitter_of", lambda runtime: SimpleNamespace(refusals=lambda program: []))
    torch.manual_seed(3)
    handle = qat.prepare(network().train(), torch.randn(2, 3, 8, 8), "w8a8", target="litert")
    state = torch.random.get_rng_state()
    torch.manual_seed(3)
    plain = qat.prepare(network().train(), torch.randn(2, 3, 8, 8), "w8a8", target="onnxruntime")
    assert torch.equal(state, torch.random.get_rng_state())
    assert handle.module.training and not any(quantizer.ready for quantizer in handle.quantizers.values())
    assert handle.state == plain.state and handle.runs == plain.runs == 0


def test_ranges_that_cannot_be_told_are_said(refusing, caplog):
    module = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    nn.init.constant_(module[0].bias, float("inf"))
    with caplog.at_level(logging.WARNING, "qat"):
        qat.prepare(module, torch.randn(2, 4), target="litert")
    assert "litert cannot run is not known before training" in caplog.text and "infinite" in caplog.text


def test_targets_name_runtimes():
    with pytest.raises(ConfigurationError, match="unknown target 'tflite'; choose one of onnxruntime, litert"):
        qat.prepare(network(), torch.randn(2, 3, 8, 8), target=["onnxruntime", "tflite"])
    with pytest.raises(ConfigurationError, match=r"target is \[\]; give a runtime"):
        qat.prepare(network(), torch.randn(2, 3, 8, 8), target=[])
