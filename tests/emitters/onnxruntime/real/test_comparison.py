"""Nodes of a file beside those of the program."""

import dataclasses

import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import qat
from qat.emitters.onnxruntime.real import build_real
from qat.emitters.onnxruntime.real.comparison import NodeCheck, NodeComparison, refuse_node, rounding_of_groups
from qat.errors import ExportError
from qat.real.nodes import RealInput, RealNode, RealOutput, Ref
from qat.real.program import RealProgram
from qat.real.weights import RealWeight


def test_a_node_that_is_wrong_is_named_with_how_far_it_is_off():
    with pytest.raises(ExportError, match=r"computes linear 'fc' otherwise .*\(3 of 9 numbers that should be equal\)"):
        refuse_node(NodeCheck("fc", "linear", 3, 9))
    with pytest.raises(ExportError, match=r"a result by 0.5, where 0.1 is explained"):
        refuse_node(NodeCheck("fc", "linear", error=0.5, bound=0.1))
    both = NodeCheck("fc", "linear", 1, 2, 0.1, 1.0) + NodeCheck("fc", "linear", 0, 5, 0.3, 2.0)
    assert (both.differing, both.total, both.error, both.bound) == (1, 7, 0.3, 2.0)


def test_a_kernel_that_computes_something_else_is_found(tmp_path):
    """A file whose bias was changed by hand."""
    program = qat.quantize(nn.Linear(32, 8).eval(), [torch.randn(2, 32)], quant="w4-weight-only")
    model = onnx.load_from_string(build_real(program))
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == "bias")
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + 1, "bias"))
    onnx.save(model, tmp_path / "model.onnx")
    report = qat.verify(program, tmp_path / "model.onnx", [torch.randn(4, 32)])
    assert not report.as_exported
    assert len(report.wrong) == 1


def test_what_is_no_number_in_both_is_equal(tmp_path):
    """The logarithm of a random number is none for every second one, and so is what a layer computes of it."""

    class Logarithm(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(4, 1), nn.Linear(1, 3)

        def forward(self, x):
            return self.last(torch.log(self.first(x)))

    torch.manual_seed(0)
    program = qat.quantize(Logarithm().eval(), [torch.randn(5, 4)], quant="fp16")
    qat.export(program, tmp_path / "model.onnx")
    compared = NodeComparison(program, tmp_path / "model.onnx")({"x": torch.randn(64, 4)})
    assert all(found.holds for found in compared.values())
    assert 10 < compared["log"].total < 54
    wrong = NodeComparison(dataclasses.replace(program, constants=program.constants | {"last.bias": torch.zeros(3)}),
                           tmp_path / "model.onnx")({"x": torch.randn(64, 4)})  # fmt: skip
    assert not wrong["last"].holds


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.integers(1, 100), st.integers(1, 5), st.sampled_from([2, 4, 8]), st.integers(0, 9))
def test_what_matmulnbits_rounds_stays_below_the_bound(inputs, outputs, bits, seed):
    generator = torch.Generator().manual_seed(seed)
    half = 2 ** (bits - 1)
    codes = torch.randint(-half, half, (outputs, inputs), generator=generator).to(torch.int8)
    scale = torch.rand(outputs, -(-inputs // 32), generator=generator)
    weight = RealWeight(codes, scale, bits, False, 32, (outputs, inputs), 0)
    arguments = (("input", Ref("x")), ("weight", Ref("w")), ("bias", None))
    node = RealNode("fc", "", "linear", arguments, "float32", ("batch", outputs))
    program = RealProgram(
        (RealInput("x", "float32", ("batch", inputs), (3, inputs)),), (RealOutput("y", "fc"),), (node,), {"w": weight}
    )
    session = onnxruntime.InferenceSession(build_real(program), providers=["CPUExecutionProvider"])
    x = torch.randn(3, inputs, generator=generator) * 10 ** torch.randint(-3, 4, (3, 1), generator=generator).float()
    found = torch.from_numpy(session.run(None, {"x": x.numpy()})[0]).double()
    bound = rounding_of_groups(x, weight) + 1e-5 * (x.abs().double() @ weight.real.abs().double().T)
    assert bool(((found - x.double() @ weight.real.double().T).abs() <= bound).all())
