"""What a certificate says of files, and what it takes to differ from one."""

import hashlib
import json

import pytest
import torch

from qat import certificate
from qat.certificate import Evidence, check_hashes, differences
from qat.emitters import export_all
from qat.errors import ExportError
from qat.integer.builder import ProgramBuilder
from qat.integer.values import Grid, Weight, WeightGrid
from qat.verification import verify_files

BYTE = Grid(0.5, 128, 0, 255)


@pytest.fixture
def program():
    codes = torch.tensor([[3, -2, 1], [-1, 2, 0]], dtype=torch.int8)
    builder = ProgramBuilder()
    weight = Weight(codes, WeightGrid(4, 16), torch.full((2,), 0.03125))
    builder.output("logits", builder.linear("fc", builder.input("x", (3,), BYTE), weight, BYTE))
    return builder.build()


@pytest.fixture
def certified(program, tmp_path):
    program.save(tmp_path)
    files = export_all(program, tmp_path, ["onnxruntime"])
    report = verify_files(program, files, [torch.zeros(5, 3)], repeats=0)
    content = certificate.certificate(program, tmp_path, files, Evidence("test", report))
    certificate.write(content, tmp_path)
    return content


def test_everything_by_hand(certified, tmp_path):
    assert certified["program"]["weight_bits"] == 6 * 4 and certified["program"]["weight_bytes"] == 3
    [layer] = certified["program"]["layers"]
    # 4-bit codes times 16: for any input 3 * 16 * 127 + 2 * 16 * 128 + 16 * 127 = 12,224, of 14 bits and a sign
    assert layer == {
        "name": "fc", "kind": "Linear", "activation_bits": 8, "weight_bits": 4, "weights": 6, "bytes": 3 + 8,
        "accumulator_bits": {"worst_case": 15, "data": 1},
    }  # fmt: skip
    assert certified["program"]["accumulators"] == {"available": 32, "worst_case": 15, "data": 1}
    file = certified["files"]["onnxruntime"]
    digest = hashlib.sha256((tmp_path / "model.onnx").read_bytes()).hexdigest()
    assert file["sha256"] == {"model.onnx": digest} and file["float_ops"] == []
    assert file["data_codes"] == {"differing": 0, "total": 10, "max_lsb": 0}
    assert file["random_codes"] == {"differing": 0, "total": 2 * (1 + 7 + 24), "max_lsb": 0}
    assert {"kind": "QGemm", "dtype": "uint8", "count": 1} in file["operations"]
    assert certified["data"] == {"samples": 5, "split": "test"}
    assert certificate.read(tmp_path) == json.loads(json.dumps(certified))


def test_deriving_it_again_gives_the_same_bytes(program, certified, tmp_path):
    files = {"onnxruntime": tmp_path / "model.onnx"}
    report = verify_files(program, files, [torch.zeros(5, 3)], repeats=0)
    again = certificate.certificate(program, tmp_path, files, Evidence("test", report))
    before = (tmp_path / certificate.CERTIFICATE_JSON).read_bytes()
    certificate.write(again, tmp_path)
    assert (tmp_path / certificate.CERTIFICATE_JSON).read_bytes() == before


@pytest.mark.parametrize("name", ["model.onnx", "program.json", "program.safetensors"])
def test_a_changed_file_is_named(certified, tmp_path, name):
    check_hashes(tmp_path)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ExportError, match=f"{name} was changed after it was certified"):
        check_hashes(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(ExportError, match=f"{name} is certified, but does not exist"):
        check_hashes(tmp_path)


def test_differences_are_places_with_both_values():
    certified = {"a": [1, {"b": 2}], "c": 3, "d": {}, "long": ["x" * 90]}
    derived = {"a": [1, {"b": 4}], "d": {"e": 0}, "long": []}
    assert differences(certified, derived) == [
        "a[1].b is 4, certified as 2",
        "c is certified, and not derived",
        "d.e is derived, and not certified",
        f'long is [], certified as ["{"x" * 75}...',
    ]
    assert differences(certified, certified) == []


@pytest.mark.parametrize(
    "content", ["", "[1]", '{"format": 1}', '{"format": 0, "program": {}, "files": {}}', "[" * 9999]
)
def test_a_damaged_certificate_is_one_sentence(tmp_path, content):
    (tmp_path / certificate.CERTIFICATE_JSON).write_text(content)
    with pytest.raises(ExportError, match=r"certificate.json is damaged \(.*\); export the run with qat-export"):
        certificate.read(tmp_path)
    (tmp_path / certificate.CERTIFICATE_JSON).unlink()
    with pytest.raises(ExportError, match="does not exist; export the run"):
        certificate.read(tmp_path)
