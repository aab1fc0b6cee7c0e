"""Models as one file, and as two."""

import errno
import os
import subprocess
import sys

import onnx
import pytest
import torch

from qat.emitters.onnxruntime import emit, emit_float, files_of, float_ops, open_session, run_session, unfolded_ops
from qat.emitters.onnxruntime.model_file import PAGE, side_file
from qat.emitters.options import ExportOptions
from qat.errors import ExportError
from qat.integer.builder import ProgramBuilder
from qat.integer.values import Grid, Weight, WeightGrid

BYTE = Grid(0.5, 128, 0, 255)


def layers(bits=8, island=False):
    """Two linear layers of 64 and 96 features, the second of `bits` bits."""
    generator = torch.Generator().manual_seed(0)
    builder = ProgramBuilder()
    value = builder.input("x", (64,), BYTE)
    for name, shape, width in (("first", (96, 64), 8), ("second", (64, 96), bits)):
        half = 2 ** (width - 1)
        codes = torch.randint(-half, half, shape, dtype=torch.int8, generator=generator)
        step = 2 ** (8 - width)
        value = builder.linear(name, value, Weight(codes, WeightGrid(width, step), torch.full(shape[:1], 0.01)), BYTE)
    if island:
        value = builder.float_island("island", "sin", {"input": value}, BYTE)
    builder.output("y", value)
    return builder.build()


def inputs(batch=5):
    return torch.rand(batch, 64, generator=torch.Generator().manual_seed(1)) * 100 - 50


def emitted(program, path, **settings):
    emit(program, path, ExportOptions(), **settings)
    return path


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_weights_beyond_the_limit_lie_in_a_file_beside_the_model(tmp_path, bits):
    program, path = layers(bits), tmp_path / "model.onnx"
    emitted(program, path, single_bytes=1000)
    assert sorted(os.listdir(tmp_path)) == ["model.onnx", "model.onnx.data"]
    assert side_file(path) == tmp_path / "model.onnx.data"
    assert files_of(path) == (path, tmp_path / "model.onnx.data")
    tensors = onnx.load(path, load_external_data=False).graph.initializer
    outside = {tensor.name: {entry.key: entry.value for entry in tensor.external_data} for tensor in tensors}
    narrow = "second/weight" if bits == 8 else "second/weight/codes"
    assert {name for name, entries in outside.items() if entries} == {"first/weight", narrow}
    assert outside[narrow] == {
        "location": "model.onnx.data", "offset": str(2 * PAGE), "length": str(64 * 96 * bits // 8)
    }  # fmt: skip
    for batch in (1, 5):
        assert torch.equal(run_session(open_session(path), {"x": inputs(batch)})["y"], program(inputs(batch)))
    assert float_ops(path) == unfolded_ops(path) == []


def test_both_files_say_the_same_and_are_equal_for_equal_programs(tmp_path):
    for folder, limit in (("a", None), ("b", 1000), ("c", 1000)):
        emitted(layers(4), tmp_path / folder / "model.onnx", single_bytes=limit)
    assert onnx.load(tmp_path / "a" / "model.onnx").graph == without_places(tmp_path / "b" / "model.onnx").graph
    for name in ("model.onnx", "model.onnx.data"):
        assert (tmp_path / "b" / name).read_bytes() == (tmp_path / "c" / name).read_bytes()


def without_places(path):
    """The model with its weights, as if they had never been elsewhere."""
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        tensor.ClearField("data_location")
    return model


def test_up_to_the_limit_there_is_one_file(tmp_path):
    path = emitted(layers(), tmp_path / "model.onnx", single_bytes=100_000)
    assert os.listdir(tmp_path) == ["model.onnx"] and side_file(path) is None
    assert files_of(path) == (path,)


def test_a_smaller_file_takes_the_place_of_both(tmp_path):
    path = emitted(layers(), tmp_path / "model.onnx", single_bytes=1000)
    (tmp_path / "other.onnx.data").write_bytes(b"of another model")
    emitted(layers(), path)
    assert sorted(os.listdir(tmp_path)) == ["model.onnx", "other.onnx.data"]


def test_a_file_of_that_name_which_no_model_names_is_left_alone(tmp_path):
    (tmp_path / "model.onnx.data").write_bytes(b"notes")
    emitted(layers(), tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx.data").read_bytes() == b"notes"


def test_a_missing_side_file_is_one_sentence(tmp_path):
    path = emitted(layers(), tmp_path / "model.onnx", single_bytes=1000)
    side_file(path).unlink()
    with pytest.raises(ExportError, match="cannot load .*model.onnx"):
        open_session(path)


def test_islands_are_compared_in_a_model_of_two_files(tmp_path):
    path = emitted(layers(island=True), tmp_path / "model.onnx", single_bytes=1000)
    assert [name.partition(" ")[0] for name in float_ops(path) if "Sin" in name] == ["Sin"]


def test_the_float_network_is_written_in_two_files_as_well(tmp_path, monkeypatch):
    monkeypatch.setattr("qat.emitters.onnxruntime.model_file.MAX_SINGLE_BYTES", 1000)
    emit_float(layers(), tmp_path / "float.onnx")
    assert sorted(os.listdir(tmp_path)) == ["float.onnx", "float.onnx.data"]
    assert run_session(open_session(tmp_path / "float.onnx"), {"x": inputs()})["y"].shape == (5, 64)


def full(descriptor):
    """Stands in for `os.fsync` where there is no space left."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("limit", [None, 1000])
@pytest.mark.parametrize("before", [None, 1000])
def test_a_full_disk_leaves_the_files_of_before(tmp_path, monkeypatch, limit, before):
    path = emitted(layers(4), tmp_path / "model.onnx", single_bytes=before)
    old = {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)}
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ExportError, match=r"model.onnx cannot be written \(No space left on device\); choose another"):
        emitted(layers(8), path, single_bytes=limit)
    assert {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)} == old


LIMITED = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_model_file import emitted, layers
from qat.errors import ExportError
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
for single_bytes in (1000, 10**6):
    try:
        emitted(layers(8), Path(sys.argv[1]), single_bytes=single_bytes)
    except ExportError as error:
        print(error)
"""


def test_files_that_may_not_grow_any_further_leave_those_of_before(tmp_path):
    path = emitted(layers(4), tmp_path / "model.onnx")
    old = path.read_bytes()
    command = [sys.executable, "-c", LIMITED, str(path), os.path.dirname(__file__), "8192"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    sentence = f"{path} cannot be written (File too large); choose another path, or free some space.\n"
    assert result.stdout == 2 * sentence
    assert os.listdir(tmp_path) == ["model.onnx"] and path.read_bytes() == old
