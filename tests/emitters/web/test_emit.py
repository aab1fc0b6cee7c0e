"""The folder of a page."""

import json
import tarfile

import pytest
import torch

import qat
from qat.emitters import web
from qat.emitters.web import package
from qat.errors import ExportError, MissingExtraError
from qat.integer.builder import ProgramBuilder
from qat.integer.images import ImageScaling
from qat.integer.values import Grid, IndexRange, Weight, WeightGrid, float32

BYTE = Grid(0.5, 0, 0, 255)


def network(shape=(1, 4, 4), classes=3):
    """Scores of flattened pixels."""
    builder = ProgramBuilder()
    x = builder.input("image", shape, BYTE)
    size = torch.Size(shape).numel()
    codes = torch.arange(classes * size).remainder(16).sub(8).to(torch.int8).reshape(classes, size)
    weight = Weight(codes, WeightGrid(4), torch.full((classes,), float32(0.01)))
    y = builder.linear("fc", builder.reshape("flat", x, (size,)), weight, Grid(float32(0.3), 100, 0, 255))
    builder.output("scores", y)
    return builder.build()


@pytest.fixture
def unpacked(tmp_path, monkeypatch):
    """A package of empty files, that no test asks a registry for."""
    dist = tmp_path / "package" / "dist"
    dist.mkdir(parents=True)
    for name in package.FILES:
        (dist / name).write_bytes(name.encode())
    monkeypatch.setenv(package.VARIABLE, str(tmp_path / "package"))
    return tmp_path / "package"


def test_the_folder_has_all_that_a_page_needs(unpacked, tmp_path):
    qat.export(network(), tmp_path / "web", runtime="web", labels=["a", "b", "c"])
    names = {path.relative_to(tmp_path / "web").as_posix() for path in (tmp_path / "web").rglob("*") if path.is_file()}
    assert names == {
        "index.html", "app.js", "style.css", "model.json", "model.onnx", "offline.js", "ort/ort.wasm.min.js",
        "ort/ort-wasm-simd-threaded.mjs", "ort/ort-wasm-simd-threaded.wasm",
    }  # fmt: skip
    described = json.loads((tmp_path / "web" / "model.json").read_text())
    assert described["input"] == {
        "name": "image", "dtype": "float32", "channels": 1, "height": 4, "width": 4, "channels_last": False,
        "largest": 255, "mean": [0.0], "std": [1.0],
    }  # fmt: skip
    assert (described["output"], described["labels"], described["drawing"]) == ("scores", ["a", "b", "c"], True)
    assert not list(tmp_path.glob(".*"))


def test_a_network_of_pictures_gets_their_bytes(unpacked, tmp_path):
    program = network((3, 4, 4)).with_image_input(mean=0.5, std=0.25, channels_last=True)
    qat.export(program, tmp_path / "web", runtime="web", image_scaling=ImageScaling(largest=7))
    described = json.loads((tmp_path / "web" / "model.json").read_text())
    assert described["input"]["dtype"] == "uint8" and described["input"]["channels_last"]
    assert described["input"]["largest"] == 255 and not described["drawing"]
    assert described["labels"] == ["0", "1", "2"]


def test_the_model_is_that_of_onnx_runtime(unpacked, tmp_path):
    path = tmp_path / "web"
    qat.export(network(), path, runtime="web")
    session = web.open_session(path)
    web.check_edges(session, network(), path)
    image = torch.rand(2, 1, 4, 4) * 120
    assert torch.equal(web.run_session(session, {"image": image})["scores"], network()(image))
    assert web.float_ops(path) == []
    assert "QGemm" in {operation.kind for operation in web.operations(path)}
    assert [file.name for file in web.files_of(path)][0] == "model.onnx"
    assert sorted(web.files_of(path)) == sorted(file for file in path.rglob("*") if file.is_file())
    assert web.stored_bytes(path) == (path / "model.onnx").stat().st_size
    with pytest.raises(ExportError, match="is the file of another program"):
        web.check_edges(session, network(classes=4), path)


def test_a_folder_that_was_there_is_replaced_or_kept(unpacked, tmp_path, monkeypatch):
    path = tmp_path / "web"
    qat.export(network(), path, runtime="web")
    (path / "ort" / "old").write_text("old")
    before = (path / "model.onnx").read_bytes()

    def fail(*arguments):
        raise ExportError("other codes")

    with monkeypatch.context() as patch:
        patch.setattr("qat.emitters.onnxruntime.check", fail)
        with pytest.raises(ExportError, match="other codes"):
            qat.export(network(classes=5), path, runtime="web")
    assert (path / "ort" / "old").exists() and (path / "model.onnx").read_bytes() == before
    qat.export(network(classes=5), path, runtime="web")
    assert not (path / "ort" / "old").exists() and (path / "model.onnx").read_bytes() != before
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")] == []


def of_tokens():
    builder = ProgramBuilder()
    codes = torch.arange(8).reshape(4, 2).to(torch.int8)
    ids = builder.input("ids", (3,), IndexRange(4))
    rows = builder.embedding("rows", ids, Weight(codes, WeightGrid(8), torch.ones(4)))
    builder.output("y", builder.reshape("flat", rows, (6,)))
    return builder.build()


def of_pictures():
    builder = ProgramBuilder()
    builder.output("y", builder.max_pool("pool", builder.input("x", (1, 4, 4), BYTE), (2, 2)))
    return builder.build()


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (of_tokens(), r"the page takes one picture of 1 or 3 channels, .* takes ids \(3,\)"),
        (network((2, 4, 4)), r"takes image \(2, 4, 4\)"),
        (of_pictures(), r"the page shows the scores of classes, .* makes y \(1, 2, 2\)"),
        (network().with_integer_edges("scores"), "a real output"),
        (network().with_integer_edges("image"), "the page takes one picture"),
    ],
)
def test_what_the_page_cannot_show_is_refused(unpacked, tmp_path, program, message):
    with pytest.raises(ExportError, match=message):
        qat.export(program, tmp_path / "web", runtime="web")
    assert not (tmp_path / "web").exists()


def test_no_npm_is_told_with_the_way_around(tmp_path, monkeypatch):
    monkeypatch.delenv(package.VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingExtraError, match="npm is not installed; .* QAT_ONNXRUNTIME_WEB to the folder"):
        package.runtime_files()


def npm(folder, script):
    folder.mkdir()
    (folder / "npm").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "npm").chmod(0o755)
    return f"{folder}:/usr/bin:/bin"


def test_npm_that_fails_is_told_with_what_it_says(tmp_path, monkeypatch):
    monkeypatch.delenv(package.VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", npm(tmp_path / "bin", "echo 'no network' >&2; exit 1"))
    with pytest.raises(ExportError, match=r"npm could not fetch onnxruntime-web@1.30.0 \(no network\)"):
        package.runtime_files()


def packed(unpacked, path):
    with tarfile.open(path, "w:gz") as archive:
        archive.add(unpacked, "package")
    return path


def test_the_package_is_fetched_once(unpacked, tmp_path, monkeypatch):
    archive = packed(unpacked, tmp_path / "fetched.tgz")
    monkeypatch.delenv(package.VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    script = f'echo "$2" >> {tmp_path}/calls; cp {archive} "$5/onnxruntime-web-1.30.0.tgz"'
    monkeypatch.setenv("PATH", npm(tmp_path / "bin", script))
    for _ in range(2):
        assert package.runtime_files()["ort.wasm.min.js"] == b"ort.wasm.min.js"
    assert (tmp_path / "calls").read_text() == "onnxruntime-web@1.30.0\n"


def test_the_package_may_be_an_archive_or_the_folder_around_it(unpacked, tmp_path, monkeypatch):
    archive = packed(unpacked, tmp_path / "given.tgz")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for given in (archive, unpacked, unpacked.parent):
        monkeypatch.setenv(package.VARIABLE, str(given))
        assert package.runtime_files()["ort.wasm.min.js"] == b"ort.wasm.min.js"


@pytest.mark.parametrize("content", [None, b"no archive"])
def test_another_package_is_refused(tmp_path, monkeypatch, content):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    given = tmp_path / "given"
    if content is not None:
        given.write_bytes(content)
    monkeypatch.setenv(package.VARIABLE, str(given))
    with pytest.raises(ExportError, match="does not exist" if content is None else "is not the npm package"):
        package.runtime_files()
    given.unlink(missing_ok=True)
    given.mkdir()
    with pytest.raises(ExportError, match="has no dist/ort.wasm.min.js; set QAT_ONNXRUNTIME_WEB"):
        package.runtime_files()
