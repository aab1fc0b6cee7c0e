"""Layers with weights in files that are not integer, with real ONNX Runtime."""

import dataclasses

import onnx
import pytest
import torch
from torch import nn

import qat
from qat.emitters.onnxruntime import float_ops, open_session, run_session
from qat.emitters.onnxruntime.real import build_real, container_bits
from qat.emitters.onnxruntime.real.codes import codes_in
from qat.emitters.onnxruntime.real.comparison import NodeComparison
from qat.emitters.onnxruntime.real.inputs import random_inputs
from qat.errors import ConfigurationError

LAYERS = {
    "linear": (lambda: nn.Linear(40, 7), (3, 40)),
    "linear of positions": (lambda: nn.Linear(40, 7), (2, 3, 40)),
    "convolution": (lambda: nn.Conv2d(3, 8, 3, stride=2, padding=1), (2, 3, 9, 9)),
    "dilated": (lambda: nn.Conv2d(3, 8, 3, dilation=2, bias=False), (2, 3, 9, 9)),
    "depthwise": (lambda: nn.Conv2d(6, 6, 3, groups=6), (2, 6, 5, 5)),
    "grouped": (lambda: nn.Conv2d(6, 4, 3, groups=2), (2, 6, 5, 5)),
    "along one dimension": (lambda: nn.Conv1d(4, 5, 3, padding=2), (2, 4, 11)),
    "in three dimensions": (lambda: nn.Conv3d(2, 3, 2), (2, 2, 4, 4, 4)),
    "transposed": (lambda: nn.ConvTranspose2d(3, 5, 3, stride=2, output_padding=1), (2, 3, 4, 4)),
}


def compared(program, path):
    """Every node of the file beside the program's, all batches together."""
    checks = {}
    comparison = NodeComparison(program, path)
    for inputs in random_inputs(program):
        for name, found in comparison(inputs).items():
            checks[name] = checks[name] + found if name in checks else found
    return checks


def cases(first, others):
    """Every layer with the first preset, and the two usual ones with the others."""
    return [(name, first) for name in LAYERS] + [
        (name, quant) for quant in others for name in ("linear", "convolution")
    ]


@pytest.mark.parametrize(("name", "quant"), cases("w8-dynamic", ["w4-dynamic", "w2-dynamic"]))
def test_codes_sums_and_results_of_dynamic_layers_are_equal(name, quant, tmp_path):
    torch.manual_seed(0)
    make, shape = LAYERS[name]
    program = qat.quantize(make().eval(), [torch.randn(shape)], quant=quant)
    qat.export(program, tmp_path / "model.onnx")
    layer = next(iter(compared(program, tmp_path / "model.onnx").values()))
    kinds = {node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node}
    if name == "transposed":  # no kernel multiplies integers of its activations
        assert not program.integer_operations
        assert "ConvTranspose" in kinds
        assert layer.holds
        return
    assert ("MatMulInteger" if name.startswith("linear") else "ConvInteger") in kinds
    assert len(program.integer_operations) == 1
    assert layer.total > 0
    assert (layer.differing, layer.error) == (0, 0.0)
    x = torch.randn(shape)
    found = run_session(open_session(tmp_path / "model.onnx"), {program.inputs[0].name: x})["output"]
    assert torch.equal(found, program(x))


@pytest.mark.parametrize(
    ("name", "quant"), cases("w4-weight-only", ["w8-weight-only", "w3-weight-only", "w2-weight-only"])
)
def test_weights_alone_are_read_back_bit_for_bit_and_layers_stay_within_their_bound(name, quant, tmp_path):
    torch.manual_seed(0)
    make, shape = LAYERS[name]
    config = dataclasses.replace(qat.QuantConfig.parse(quant), edge_bits=2)
    program = qat.quantize(make().eval(), [torch.randn(shape)], quant=config)
    qat.export(program, tmp_path / "model.onnx")
    (weight,), (codes,) = program.weights.values(), codes_in(tmp_path / "model.onnx", program).values()
    assert weight.bits == int(quant[1])
    assert torch.equal(codes, weight.codes)
    assert all(found.holds for found in compared(program, tmp_path / "model.onnx").values())
    assert not program.integer_operations
    kinds = {node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node}
    assert ("MatMulNBits" in kinds) == name.startswith("linear")


def test_narrow_weights_take_fewer_bytes_in_the_file(tmp_path):
    torch.manual_seed(0)
    network = nn.Linear(128, 256).eval()
    sizes = {}
    for bits in (2, 3, 4, 8):
        config = dataclasses.replace(qat.QuantConfig.parse(f"w{bits}-weight-only"), edge_bits=2)
        program = qat.quantize(network, [torch.randn(2, 128)], quant=config)
        sizes[bits] = len(build_real(program)) - 256 * 4 * 2  # without the scales
        assert container_bits(program) == {str(bits): {3: 4}.get(bits, bits)}
    weights = 128 * 256
    assert all(abs(sizes[bits] - weights * width / 8) < 2000 for bits, width in ((2, 2), (3, 4), (4, 4), (8, 8)))


def test_float16_halves_what_has_no_codes(tmp_path):
    network = nn.Linear(256, 256).eval()
    sizes = {
        storage: len(build_real(qat.quantize(network, [torch.randn(2, 256)], quant=qat.QuantConfig(
            weight=None, activations="float", storage=storage
        ))))
        for storage in ("float16", "float32")
    }  # fmt: skip
    assert 1.95 < sizes["float32"] / sizes["float16"] < 2.0


def test_tokens_that_several_layers_read_are_made_once():
    class Three(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = nn.ModuleList(nn.Linear(32, 32) for _ in range(3))

        def forward(self, x):
            return sum(part(x) for part in self.parts)

    program = qat.quantize(Three().eval(), [torch.randn(2, 5, 32)], quant="w8-dynamic")
    kinds = [node.op_type for node in onnx.load_from_string(build_real(program)).graph.node]
    assert (kinds.count("MatMulInteger"), kinds.count("ReduceMax")) == (3, 1)


def test_a_file_is_the_same_each_time_and_never_integer(tmp_path):
    torch.manual_seed(0)
    network, x = nn.Linear(32, 8).eval(), torch.randn(2, 32)
    for quant in ("fp16", "w8-dynamic", "w4-weight-only"):
        programs = [qat.quantize(network, [x], quant=quant) for _ in range(2)]
        assert build_real(programs[0]) == build_real(programs[1])
        qat.export(programs[0], tmp_path / "model.onnx")
        assert float_ops(tmp_path / "model.onnx")


def test_other_runtimes_refuse_them(tmp_path):
    program = qat.quantize(nn.Linear(32, 8).eval(), [torch.randn(2, 32)], quant="w4-weight-only")
    with pytest.raises(ConfigurationError, match="activations are float, and c runs integer files only"):
        qat.export(program, tmp_path / "model.c", runtime="c")
