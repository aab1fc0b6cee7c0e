"""What a file says of itself, against what was written into it."""

import pytest
import torch

from qat.emitters import export
from qat.emitters.onnxruntime import operations
from qat.emitters.options import FileOperation
from qat.integer.builder import ProgramBuilder
from qat.integer.values import Grid, Weight, WeightGrid

BYTE = Grid(0.5, 128, 0, 255)


@pytest.mark.parametrize(("bits", "bytes"), [(8, 12), (7, 12), (6, 12), (5, 12), (4, 6), (3, 6), (2, 3)])
def test_operations_with_their_types_and_the_bytes_of_their_weights(tmp_path, bits, bytes):
    codes = torch.tensor([[1, -1, 0, 1], [-2, 1, 1, 0], [0, 0, -1, 1]], dtype=torch.int8)
    weight = Weight(codes, WeightGrid(bits), torch.full((3,), 0.25))
    builder = ProgramBuilder()
    builder.output("y", builder.linear("fc", builder.input("x", (4,), BYTE), weight, BYTE))
    export(builder.build(), tmp_path / "model.onnx")
    found = {entry.name: entry for entry in operations(tmp_path / "model.onnx")}
    assert found["x"] == FileOperation("x", "QuantizeLinear", "uint8", 4 + 1)  # a scale and a zero point
    assert (found["fc"].kind, found["fc"].dtype) == ("QGemm", "uint8")
    weights = [entry for entry in found.values() if entry.name.startswith("fc") and entry.kind in ("Cast", "QGemm")]
    scales, zero_points = 4 * 3, 3  # those of the result are the input's, which are there already
    assert sum(entry.bytes for entry in weights) == bytes + scales + zero_points
    assert found["y"].kind == "DequantizeLinear" and found["y"].dtype == "float"
