import sys

import pytest
import torch

from qat.emitters import emitter_of, export
from qat.errors import ConfigurationError, MissingExtraError


def test_an_unknown_runtime_is_refused_with_those_there_are(tmp_path):
    with pytest.raises(ConfigurationError, match="runtime is 'onyx'; choose one of onnxruntime"):
        export(None, tmp_path / "model.onnx", runtime="onyx")


@pytest.mark.parametrize(
    ("runtime", "package", "extra"),
    [
        ("onnxruntime", "onnx", "onnxruntime"),
        ("onnxruntime", "onnxruntime", "onnxruntime"),
        ("litert", "ai_edge_litert", "litert"),
        ("litert", "flatbuffers", "litert"),
        ("tensorrt", "onnx", "onnxruntime"),
        ("web", "onnxruntime", "onnxruntime"),
    ],
)
def test_a_missing_package_names_the_extra(monkeypatch, runtime, package, extra):
    for name in [name for name in sys.modules if name.startswith(("qat.emitters.", package))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    with pytest.raises(MissingExtraError, match=rf"needs the package '{package}'.*lightning-qat\[{extra}\]"):
        emitter_of(runtime)


def test_a_network_instead_of_a_program_is_told_the_way(tmp_path):
    with pytest.raises(ConfigurationError, match=r"takes an IntegerProgram, not a Linear; call qat.convert\(module\)"):
        export(torch.nn.Linear(2, 2), tmp_path / "model.onnx")
