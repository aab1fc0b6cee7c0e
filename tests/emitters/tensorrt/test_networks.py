"""Networks prepared for TensorRT: eval forward, program and file give equal codes, and the engine is int8."""

import onnx
import pytest
import torch

import qat
from qat.emitters.tensorrt import IslandComparison, conformance, islands_in, open_session, run_session
from qat.errors import ConfigurationError, PreparationError
from qat.integer.builder import ProgramBuilder
from qat.integer.semantics import for_runtime
from qat.integer.values import Grid, float32
from qat.models.digits_cnn import DigitsCNN
from qat.models.mobilenet_v2 import InvertedResidual
from qat.models.vision_transformer import VisionTransformer


class Inverted(torch.nn.Module):
    """Depthwise layers, relu6, a residual without an activation, a hard swish, a pool."""

    def __init__(self):
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.block = InvertedResidual(8, 8, 1, 2)
        self.active = torch.nn.Hardswish()
        self.head = torch.nn.Linear(8 * 4, 5)

    def forward(self, x):
        x = self.active(self.block(torch.relu(self.stem(x))))
        return self.head(torch.nn.functional.avg_pool2d(x, 2).flatten(1))


NETWORKS = {
    "digits": (DigitsCNN, (1, 8, 8)),
    "inverted": (Inverted, (3, 8, 8)),
    "transformer": (
        lambda: VisionTransformer(image_size=8, patch_size=4, width=32, heads=2, depth=1, hidden=64),
        (3, 8, 8),
    ),
}


@pytest.mark.parametrize(
    ("name", "quant"),
    [
        ("digits", "w8a8"), ("digits", "w4a8"), ("digits", "w4a4"), ("inverted", "w8a8"), ("inverted", "w4a4"),
        ("transformer", "w8a8"), ("transformer", "w4a4"),
    ],
)  # fmt: skip
def test_eval_forward_program_and_file_are_equal_and_the_engine_is_int8(tmp_path, name, quant):
    torch.manual_seed(0)
    make, shape = NETWORKS[name]
    network, path = make(), tmp_path / "model_tensorrt.onnx"
    handle = qat.prepare(network, torch.randn(4, *shape), quant=quant, target="tensorrt")
    optimizer = torch.optim.SGD([*network.parameters(), *handle.parameters()], lr=0.01)
    for _ in range(2):
        optimizer.zero_grad()
        network(torch.randn(4, *shape)).square().mean().backward()
        optimizer.step()
    network.eval()
    program = qat.convert(network)
    qat.export(program, path, runtime="tensorrt")
    inputs = torch.randn(32, *shape)
    with torch.no_grad():
        assert torch.equal(network(inputs), program(inputs))
    edge = program.inputs[0].name
    (given,) = run_session(open_session(path), {edge: inputs}).values()
    if islands_in(program, path):
        codes, expected = IslandComparison(program, path)({edge: inputs})
        assert codes.largest <= 1
        assert torch.equal(given, *expected.values())
    else:
        assert torch.equal(given, program(inputs))
    for compute_capability in conformance.COMPUTE_CAPABILITIES:
        found = conformance.node_types(path, compute_capability)
        assert found and {node.datatype for node in found} == {"Int8"}


def test_a_product_and_an_input_round_as_the_kernels_of_engines_do(tmp_path):
    scale = float32(0.3)
    builder = ProgramBuilder()
    x, y = (builder.input(name, (254,), Grid(scale, 0, -127, 127)) for name in "xy")
    builder.output("product", builder.mul("mul", x, y, Grid(scale, 0, -127, 127)))
    builder.output("input", builder.requantize("same", x, Grid(scale, 0, -127, 127)))
    program = builder.build("dict")
    qat.export(program, tmp_path / "model.onnx", runtime="tensorrt")
    halves = (torch.arange(-127, 127) + 0.5) * torch.tensor(scale)
    inputs = {"x": halves[None], "y": halves.flip(0)[None]}
    expected = for_runtime(program, "tensorrt")(inputs)
    given = run_session(open_session(tmp_path / "model.onnx"), inputs)
    assert all(torch.equal(given[name], expected[name]) for name in expected)
    # beside a tie the reciprocal of the scale rounds otherwise than the scale
    assert not torch.equal(expected["input"], program(inputs)["input"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node]
    assert "Round" not in kinds


def test_values_that_cannot_be_negative_use_every_code_that_int8_has_for_them():
    torch.manual_seed(0)
    programs = {}
    for quant in ("w8a8", "w4a4"):
        network = DigitsCNN()
        qat.prepare(network, torch.randn(4, 1, 8, 8), quant=quant, target="tensorrt")
        network(torch.randn(4, 1, 8, 8))
        programs[quant] = qat.convert(network.eval())
    grids = {quant: {value.grid for value in program.values} for quant, program in programs.items()}
    assert all(grid.zero_point == 0 and -128 <= grid.quant_min and grid.quant_max <= 127 for grid in grids["w8a8"])
    assert {(grid.quant_min, grid.quant_max) for grid in grids["w4a4"]} == {(-127, 127), (-7, 7), (0, 15)}
    assert all(isinstance(grid, Grid) for grid in grids["w4a4"])


def test_other_grids_are_refused_before_training():
    quant = qat.QuantConfig(activation=qat.QuantSpec(signed=False, symmetric=False))
    with pytest.raises(ConfigurationError, match="tensorrt needs signed symmetric activations"):
        qat.prepare(DigitsCNN(), torch.randn(4, 1, 8, 8), quant=quant, target="tensorrt")


def test_an_operation_without_a_kernel_is_refused_before_training():
    network = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.MaxPool1d(2, dilation=2))
    with pytest.raises(
        PreparationError, match=r"tensorrt cannot run this network: MaxPool .* windows without dilation"
    ):
        qat.prepare(network, torch.randn(2, 3, 4), target="tensorrt")
