"""Files whose inputs and outputs are codes."""

import onnx
import pytest
import torch
from onnx import TensorProto

import qat
from qat.emitters.onnxruntime import check_edges, float_ops, open_session, run_session
from qat.errors import ExportError
from qat.integer.builder import ProgramBuilder
from qat.integer.program import Grid, float32

GRIDS = [Grid(float32(0.05), 100, 0, 255), Grid(float32(0.05), -4, -128, 127)]


def program(grid):
    builder = ProgramBuilder()
    builder.input("past", (2, 3), grid)
    builder.input("new", (2, 1), grid)
    joined = builder.concatenate("join", ("past", "new"), 2)
    builder.output("present", builder.slice("cut", joined, (0, 1), (2, 4)))
    builder.output("half", builder.requantize("half", joined, grid, factor=0.5))
    return builder.build("dict")


@pytest.mark.parametrize("grid", GRIDS)
def test_every_code_passes_the_file_as_it_passes_the_program(tmp_path, grid):
    codes = program(grid).with_integer_edges("*")
    qat.export(codes, tmp_path / "model.onnx")
    assert float_ops(tmp_path / "model.onnx") == []
    graph = onnx.load(tmp_path / "model.onnx").graph
    kinds = {info.type.tensor_type.elem_type for info in (*graph.input, *graph.output)}
    assert kinds == {TensorProto.UINT8} and not {"QuantizeLinear", "DequantizeLinear"} & {n.op_type for n in graph.node}
    every = torch.arange(256, dtype=torch.uint8)
    inputs = {
        "past": every.repeat_interleave(6).view(256, 2, 3),
        "new": every.flip(0).repeat_interleave(2).view(-1, 2, 1),
    }
    session = open_session(tmp_path / "model.onnx")
    for name, expected in codes(inputs).items():
        assert torch.equal(run_session(session, inputs)[name], expected)


@pytest.mark.parametrize("grid", GRIDS)
def test_verification_compares_codes_with_codes_and_with_real_numbers(tmp_path, grid):
    class Network(torch.nn.Module):
        def forward(self, past, new):
            return program(grid)({"past": past, "new": new})

    codes = program(grid).with_integer_edges("past", "present")
    qat.export(codes, tmp_path / "model.onnx")
    batch = {"past": torch.randint(0, 256, (5, 2, 3), dtype=torch.uint8), "new": torch.randn(5, 2, 1)}
    report = qat.verify(codes, tmp_path / "model.onnx", [batch], float_module=Network().eval(), repeats=2)
    assert report.ok and report.mismatches["onnxruntime"].total == 5 * (6 + 8) and report.latency_ms["float"] > 0


def test_a_file_of_real_edges_is_another_program(tmp_path):
    qat.export(program(GRIDS[0]), tmp_path / "model.onnx")
    with pytest.raises(ExportError, match=r"the program makes present tensor\(uint8\) \(2, 3\), half \(2, 4\)"):
        check_edges(
            open_session(tmp_path / "model.onnx"), program(GRIDS[0]).with_integer_edges("present"), "model.onnx"
        )
