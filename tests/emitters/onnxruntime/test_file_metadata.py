"""What a file says of itself."""

import json

import onnx
import pytest
import torch
from onnx import helper

import qat
from qat.emitters import export
from qat.emitters.onnxruntime import emit, metadata, open_session
from qat.emitters.options import ExportOptions
from qat.errors import ExportError
from qat.integer.builder import ProgramBuilder
from qat.integer.storage import JSON_NAME, digest
from qat.integer.values import Grid, IndexRange, Weight, WeightGrid

SIGNED = Grid(0.25, -3, -128, 127)
NARROW = Grid(0.5, 2, 0, 15)


def program():
    builder = ProgramBuilder()
    x = builder.input("x", (4,), SIGNED)
    builder.input("ids", (2,), IndexRange(7))
    weight = Weight(torch.tensor([[1, -1, 0, 1]] * 2, dtype=torch.int8), WeightGrid(3, 32), torch.full((2,), 0.25))
    result = builder.linear("fc", x, weight, NARROW)
    builder.output("y", builder.reshape("same", result, (2, 1)))
    builder.output("places", builder.slice("cut", "ids", (0,), (1,)))
    return builder.build("dict")


def test_scaling_bits_and_producer_can_be_read_back(tmp_path):
    export(program(), tmp_path / "model.onnx")
    assert metadata(tmp_path / "model.onnx") == {
        "producer": {"name": "lightning-qat", "version": qat.__version__},
        "program_sha256": digest(program()),
        "inputs": {
            "x": {"dtype": "float32", "scale": 0.25, "zero_point": 125},
            "ids": {"dtype": "int64", "count": 7},
        },
        "outputs": {
            "y": {"dtype": "float32", "scale": 0.5, "zero_point": 2},
            "places": {"dtype": "int64", "count": 7},
        },
        "weight_bits": {"fc": 3},
        "activation_bits": {"fc": 4, "same": 4, "cut": 3},
    }


def test_the_digest_is_that_of_the_saved_program(tmp_path):
    program().save(tmp_path)
    export(qat.IntegerProgram.load(tmp_path), tmp_path / "model.onnx")
    saved = json.loads((tmp_path / JSON_NAME).read_text())["sha256"]
    assert metadata(tmp_path / "model.onnx")["program_sha256"] == saved == digest(program())
    assert digest(program().with_integer_edges("y")) != saved


def test_labels_are_there_in_their_order(tmp_path):
    emit(program(), tmp_path / "a.onnx", ExportOptions(labels=["zwei", "eins"]))
    emit(program(), tmp_path / "b.onnx")
    assert metadata(tmp_path / "a.onnx")["labels"] == ["zwei", "eins"]
    assert "labels" not in metadata(tmp_path / "b.onnx")


def test_the_runtime_shows_the_same(tmp_path):
    export(program(), tmp_path / "model.onnx")
    shown = open_session(tmp_path / "model.onnx").get_modelmeta()
    assert shown.producer_name == "lightning-qat"
    assert {key: json.loads(text) for key, text in shown.custom_metadata_map.items()} == metadata(
        tmp_path / "model.onnx"
    )


def test_texts_of_others_are_left_as_they_are(tmp_path):
    export(program(), tmp_path / "model.onnx")
    model = onnx.load(tmp_path / "model.onnx")
    helper.set_model_props(model, {"author": "somebody else"})
    onnx.save(model, tmp_path / "model.onnx")
    assert metadata(tmp_path / "model.onnx") == {"author": "somebody else"}


def test_what_is_no_onnx_file_is_one_sentence(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"no protobuf")
    with pytest.raises(ExportError, match="model.onnx is no ONNX file"):
        metadata(tmp_path / "model.onnx")
    with pytest.raises(ExportError, match="does not exist"):
        metadata(tmp_path / "missing.onnx")
