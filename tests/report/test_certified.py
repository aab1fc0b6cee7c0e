"""The certificate as rows of a page, and a certificate that is none."""

import copy
import json

import pytest

from qat.errors import ReportError
from qat.report.certified import FileRow, LayerRow, read_certified

CONTENT = {
    "format": 1,
    "data": {"split": "test", "samples": 1797},
    "program": {
        "sha256": {},
        "accumulators": {"available": 32, "worst_case": 21, "data": 19},
        "layers": [
            {
                "name": "conv", "kind": "Conv", "activation_bits": 8, "weight_bits": 3, "weights": 11, "bytes": 9,
                "accumulator_bits": {"worst_case": 21, "data": 19},
            },
            {"name": "add", "kind": "Add", "activation_bits": 8, "accumulator_bits": {"worst_case": 9, "data": None}},
            {"name": "reshape", "kind": "Reshape", "activation_bits": 8},
        ],
    },
    "files": {
        "onnxruntime": {
            "file": "model.onnx",
            "sha256": {"model.onnx": "0123456789abcdef"},
            "bytes": 1234,
            "operations": [{"kind": "QLinearConv", "dtype": "uint8", "count": 2}],
            "weights": [
                {"name": "conv", "kind": "QLinearConv", "dtype": "uint8", "bytes": 7},
                {"name": "conv/weight", "kind": "Cast", "dtype": "int8", "bytes": 6},
                {"name": "conv2", "kind": "QLinearConv", "dtype": "uint8", "bytes": 100},
            ],
            "float_ops": [],
            "data_codes": {"differing": 0, "total": 17970, "max_lsb": 0},
            "random_codes": {"differing": 1, "total": 320, "max_lsb": 1},
        }
    },
}  # fmt: skip


def written(tmp_path, content):
    (tmp_path / "certificate.json").write_text(json.dumps(content))
    return tmp_path


def test_rows_of_files_and_layers(tmp_path):
    found = read_certified(written(tmp_path, CONTENT))
    assert found.files == (
        FileRow(
            runtime="onnxruntime",
            file="model.onnx",
            bytes="1,234",
            sha256=("0123456789abcdef  model.onnx",),
            operations="2 QLinearConv uint8",
            float_ops=0,
            data_codes="0 of 17,970",
            random_codes="1 of 320",
            equal=False,
        ),
    )
    assert found.layers == (
        LayerRow("conv", "3", "5", ("13",), "21", "19"),  # 3 bits x 11 weights are 33 bits
        LayerRow("add", "–", "–", ("–",), "9", "–"),
    )
    assert found.data == "the test split, 1,797 samples"
    assert found.margin == "the widest accumulator takes 21 of 32 bits for any input (11 spare), 19 bits for the data"


def test_a_run_without_a_certificate_has_none(tmp_path):
    assert read_certified(tmp_path) is None


def test_what_was_not_measured_is_absent(tmp_path):
    content = copy.deepcopy(CONTENT)
    content["data"] = content["files"]["onnxruntime"]["data_codes"] = None
    content["program"]["accumulators"] = {"available": 32, "worst_case": None, "data": None}
    found = read_certified(written(tmp_path, content))
    assert (found.data, found.margin, found.files[0].data_codes) == ("no data", "nothing is accumulated", "–")


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content["files"]["onnxruntime"].pop("sha256"),
        lambda content: content["files"].update(c=[]),
        lambda content: content["program"].update(layers=3),
        lambda content: content["program"].pop("accumulators"),
        lambda content: content.update(data={"split": "test"}),
        lambda content: content.update(format=7),
    ],
)
def test_damage_is_one_sentence(tmp_path, damage):
    content = copy.deepcopy(CONTENT)
    damage(content)
    with pytest.raises(ReportError, match=r"certificate.json is damaged \(.*\); write it again with qat-verify"):
        read_certified(written(tmp_path, content))
