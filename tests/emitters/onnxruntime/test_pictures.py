"""Files that take raw pictures."""

import onnx
import pytest
import torch

from qat.emitters import export
from qat.emitters.onnxruntime import emit, float_ops, metadata, open_session, operations, run_session
from qat.emitters.options import ExportOptions
from qat.errors import ConfigurationError
from qat.integer.builder import ProgramBuilder
from qat.integer.images import ImageScaling
from qat.integer.values import Grid, Weight, WeightGrid, float32
from qat.verification import verify

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
GRID = Grid(float32(0.01875), 113, 0, 255)
NARROW = Grid(float32(0.3), 7, 0, 15)


def network(grid=GRID, channels=3):
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(-127, 128, (8, channels, 3, 3), dtype=torch.int8, generator=generator)
    builder = ProgramBuilder()
    weight = Weight(codes, WeightGrid(8), torch.full((8,), 0.01))
    padding = ((1, 1), (1, 1))
    source = builder.input("image", (channels, 6, 5), grid)
    builder.output("y", builder.conv("conv", source, weight, Grid(0.125, 128, 0, 255), padding=padding))
    return builder.build()


def every_pixel(channels_last):
    """(9, 3, 6, 5) pictures in which every channel has every pixel, or (9, 6, 5, 3)."""
    pixels = torch.arange(9 * 30, dtype=torch.int64) % 256
    pictures = torch.stack([(pixels + 7 * channel).reshape(9, 6, 5) % 256 for channel in range(3)], 1).to(torch.uint8)
    return pictures.permute(0, 2, 3, 1).contiguous() if channels_last else pictures


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("grid", [GRID, NARROW])
def test_a_picture_gives_the_codes_of_its_normalized_numbers(tmp_path, channels_last, grid):
    program = network(grid)
    raw = program.with_image_input(MEAN, STD, channels_last)
    export(raw, tmp_path / "model.onnx")
    session = open_session(tmp_path / "model.onnx")
    assert session.get_inputs()[0].type == "tensor(uint8)"
    pictures = every_pixel(channels_last)
    real = ImageScaling(MEAN, STD, channels_last=channels_last).normalize(pictures)
    for batch in (1, 9):
        found = run_session(session, {"image": pictures[:batch]})["y"]
        assert torch.equal(found, program(real[:batch]))
    assert float_ops(tmp_path / "model.onnx") == []


def test_a_table_that_changes_nothing_is_not_in_the_file(tmp_path):
    grid = Grid(float32(1 / 255), 0, 0, 255)
    export(network(grid).with_image_input(), tmp_path / "model.onnx")
    assert [entry.kind for entry in operations(tmp_path / "model.onnx")] == [
        "Identity",
        "QLinearConv",
        "DequantizeLinear",
    ]
    export(network(grid).with_image_input(channels_last=True), tmp_path / "model.onnx")
    assert "Transpose" in [node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node]


def test_verification_feeds_pictures_and_compares_with_normalized_numbers(tmp_path):
    raw = network().with_image_input(MEAN, STD, channels_last=True)
    export(raw, tmp_path / "model.onnx")
    scaling = ImageScaling(MEAN, STD)
    real = scaling.normalize(every_pixel(False))
    for batches in ([real], [every_pixel(True)]):
        report = verify(raw, tmp_path / "model.onnx", batches, repeats=2)
        assert report.ok and report.mismatches["onnxruntime"].total == 9 * 8 * 30
        assert set(report.latency_ms) == {"integer", "float"}
    with pytest.raises(ConfigurationError, match="are not .pixel / 255 - mean. / std of whole pixels"):
        verify(raw, tmp_path / "model.onnx", [real + 0.02], repeats=0)


def test_scaling_and_layout_are_in_the_file_also_with_weights_beside_it(tmp_path):
    raw = network().with_image_input(MEAN, STD, channels_last=True)
    emit(raw, tmp_path / "model.onnx", ExportOptions(labels=("cat", "dog")), single_bytes=100)
    described = metadata(tmp_path / "model.onnx")
    assert described["labels"] == ["cat", "dog"]
    assert described["inputs"]["image"] == {
        "dtype": "uint8", "scale": float32(1 / 255), "zero_point": 0,
        "mean": list(MEAN), "std": list(STD), "largest": 255, "layout": "channels_last",
    }  # fmt: skip
    session = open_session(tmp_path / "model.onnx")
    for batch in (1, 4):
        pictures = every_pixel(True)[:batch]
        assert torch.equal(run_session(session, {"image": pictures})["y"], raw(pictures))
