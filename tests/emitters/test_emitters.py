import importlib

import pytest
import torch

from qat.emitters import emitter_of, export
from qat.errors import ConfigurationError, MissingExtraError


def test_an_unknown_runtime_is_refused_with_those_there_are(tmp_path):
    with pytest.raises(ConfigurationError, match="runtime is 'onyx'; choose one of onnxruntime"):
        export(None, tmp_path / "model.onnx", runtime="onyx")


def test_a_missing_package_names_the_extra(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError("No module named 'onnx'", name="onnx")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(MissingExtraError, match=r"needs the package 'onnx'.*lightning-qat\[onnxruntime\]"):
        emitter_of("onnxruntime")


def test_a_network_instead_of_a_program_is_told_the_way(tmp_path):
    with pytest.raises(ConfigurationError, match=r"takes an IntegerProgram, not a Linear; call qat.convert\(module\)"):
        export(torch.nn.Linear(2, 2), tmp_path / "model.onnx")
