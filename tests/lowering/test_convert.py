"""Every operation that lowers: eval forward, interpreter and ONNX Runtime compute the same codes."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qat
from qat.errors import ConversionError, ObservationError
from qat.schedule import QuantState


class Network(nn.Module):
    """A convolution in front, `body` in the middle, a classifier behind."""

    def __init__(self, body, channels: int, features: int, parts: dict | None = None):
        super().__init__()
        self.first = nn.Conv2d(3, channels, 3, padding=1)
        self.parts = nn.ModuleDict(parts or {})
        self.last = nn.Linear(features, 5)
        self.body = body
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, channels)[:, None, None])
        self.position = nn.Parameter(torch.linspace(-0.2, 0.3, channels)[None, :, None, None])

    def forward(self, x):
        return self.last(self.body(self, F.relu(self.first(x))).flatten(1))


def batch_norm(features, dims):
    """A batch norm that has seen something: means, variances, a negative and a tiny weight."""
    part = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d}[dims](features)
    with torch.no_grad():
        part.weight.copy_(torch.linspace(-1.2, 1.3, features))
        part.weight[features // 2] = 1e-12
        part.bias.copy_(torch.linspace(0.4, -0.3, features))
        part.running_mean.copy_(torch.linspace(-0.1, 0.2, features))
        part.running_var.copy_(torch.linspace(0.5, 2.0, features))
    return part


def conv_bn(net, x):
    return F.relu(net.parts["bn"](net.parts["conv"](x)))


BODIES = {
    "identity": (lambda net, x: x, 8 * 64, {}),
    "conv_batch_norm": (conv_bn, 4 * 64, {"conv": nn.Conv2d(8, 4, 3, padding=1), "bn": batch_norm(4, 2)}),
    "depthwise": (conv_bn, 8 * 64, {"conv": nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), "bn": batch_norm(8, 2)}),
    "grouped_dilated_strided": (
        conv_bn, 4 * 9, {"conv": nn.Conv2d(8, 4, 3, 2, 1, dilation=2, groups=2), "bn": batch_norm(4, 2)},
    ),
    "same_padding": (conv_bn, 4 * 64, {"conv": nn.Conv2d(8, 4, (3, 5), padding="same"), "bn": batch_norm(4, 2)}),
    "conv1d": (
        lambda net, x: F.relu(net.parts["bn"](net.parts["conv"](x.flatten(2)))), 6 * 32,
        {"conv": nn.Conv1d(8, 6, 5, 2, 2), "bn": batch_norm(6, 1)},
    ),
    "linear_batch_norm": (
        lambda net, x: F.relu(net.parts["bn"](net.parts["linear"](x.flatten(1)))), 7,
        {"linear": nn.Linear(8 * 64, 7), "bn": batch_norm(7, 1)},
    ),
    "linear_3d": (lambda net, x: net.parts["linear"](x.flatten(2)), 8 * 5, {"linear": nn.Linear(64, 5)}),
    "batch_norm_alone": (lambda net, x: net.parts["bn"](F.max_pool2d(x, 2)), 8 * 16, {"bn": batch_norm(8, 2)}),
    "batch_norm_alone_1d": (lambda net, x: net.parts["bn"](x.flatten(2)[:, :, ::2]), 8 * 32, {"bn": batch_norm(8, 1)}),
    "batch_norm_alone_features": (lambda net, x: net.parts["bn"](x.mean((2, 3))), 8, {"bn": batch_norm(8, 1)}),
    "add": (lambda net, x: F.relu(net.parts["conv"](x) + x), 8 * 64, {"conv": nn.Conv2d(8, 8, 1)}),
    "add_in_place": (
        lambda net, x: F.relu_(net.parts["conv"](x).add_(x)), 8 * 64, {"conv": nn.Conv2d(8, 8, 1)},
    ),
    "add_twice_the_same": (lambda net, x: x + x, 8 * 64, {}),
    "add_constant": (lambda net, x: x + net.position, 8 * 64, {}),
    "constant_add": (lambda net, x: net.position + x, 8 * 64, {}),
    "add_number": (lambda net, x: x + 0.75, 8 * 64, {}),
    "number_add": (lambda net, x: -0.3 + x, 8 * 64, {}),
    "mul": (lambda net, x: net.parts["conv"](x) * x, 8 * 64, {"conv": nn.Conv2d(8, 8, 1)}),
    "mul_broadcast": (lambda net, x: x * net.parts["conv"](x).mean((2, 3), keepdim=True), 8 * 64, {"conv": nn.Conv2d(8, 8, 1)}),
    "mul_constant": (lambda net, x: x * net.scale, 8 * 64, {}),
    "mul_number": (lambda net, x: x * 1.7, 8 * 64, {}),
    "mul_negative_number": (lambda net, x: net.parts["conv"](x) * -0.6, 8 * 64, {"conv": nn.Conv2d(8, 8, 1)}),
    "relu6": (lambda net, x: F.relu6(net.parts["conv"](x) * 9.0), 8 * 64, {"conv": nn.Conv2d(8, 8, 1)}),
    "hardtanh": (lambda net, x: F.hardtanh(net.parts["conv"](x), -0.2, 0.3), 8 * 64, {"conv": nn.Conv2d(8, 8, 1)}),
    "clamp": (lambda net, x: net.parts["conv"](x).clamp(min=-0.1, max=0.25), 8 * 64, {"conv": nn.Conv2d(8, 8, 1)}),
    "clamp_of_sum": (lambda net, x: torch.clamp(net.parts["conv"](x) + x, max=0.4), 8 * 64, {"conv": nn.Conv2d(8, 8, 1)}),
    "relu_alone": (
        lambda net, x: F.relu(torch.cat([y := net.parts["conv"](x), y * 0.5], 1)), 16 * 64, {"conv": nn.Conv2d(8, 8, 1)},
    ),
    "max_pool": (lambda net, x: F.max_pool2d(x, 3, 2, 1), 8 * 16, {}),
    "max_pool_ceil": (lambda net, x: F.max_pool2d(x, 3, 2, ceil_mode=True), 8 * 16, {}),
    "max_pool1d": (lambda net, x: F.max_pool1d(x.flatten(2), 4), 8 * 16, {}),
    "avg_pool": (lambda net, x: F.avg_pool2d(x, 3, 2, 1), 8 * 16, {}),
    "avg_pool1d": (lambda net, x: F.avg_pool1d(x.flatten(2), 4), 8 * 16, {}),
    "adaptive_avg_pool": (lambda net, x: F.adaptive_avg_pool2d(x, 2), 8 * 4, {}),
    "adaptive_avg_pool_one": (lambda net, x: F.adaptive_avg_pool2d(x, 1), 8, {}),
    "mean": (lambda net, x: x.mean((2, 3)), 8, {}),
    "mean_channels": (lambda net, x: x.mean(1, keepdim=True), 64, {}),
    "amax": (lambda net, x: x.amax((2, 3)), 8, {}),
    "cat": (lambda net, x: torch.cat([net.parts["conv"](x), x], 1), 12 * 64, {"conv": nn.Conv2d(8, 4, 1)}),
    "stack": (lambda net, x: torch.stack([net.parts["conv"](x), x], 2), 16 * 64, {"conv": nn.Conv2d(8, 8, 1)}),
    "slices": (lambda net, x: x[:, 1:7:2, ::2, 3:] , 3 * 4 * 5, {}),
    "select": (lambda net, x: x[:, :, 2], 8 * 8, {}),
    "split": (lambda net, x: torch.cat(x.split([3, 5], 1)[::-1], 1), 8 * 64, {}),
    "chunk": (lambda net, x: torch.cat(x.chunk(2, 3), 1), 8 * 64, {}),
    "pad": (lambda net, x: F.pad(x, (1, 0, 2, 1)), 8 * 9 * 11, {}),
    "pad_signed": (lambda net, x: F.pad(net.parts["conv"](x), (1, 1)), 8 * 80, {"conv": nn.Conv2d(8, 8, 1)}),
    "permute": (lambda net, x: net.parts["linear"](x.permute(0, 2, 3, 1)), 64 * 3, {"linear": nn.Linear(8, 3)}),
    "transpose": (lambda net, x: net.parts["linear"](x.flatten(2).transpose(1, 2)), 64 * 3, {"linear": nn.Linear(8, 3)}),
    "reshapes": (lambda net, x: x.view(x.size(0), 2, -1).unsqueeze(1).squeeze(1).unflatten(2, (16, 16)), 512, {}),
    "dropout": (lambda net, x: F.dropout(net.parts["conv"](x), 0.5, net.training), 8 * 64, {"conv": nn.Conv2d(8, 8, 1)}),
    "shared_layer": (lambda net, x: net.parts["conv"](net.parts["conv"](x)), 8 * 64, {"conv": nn.Conv2d(8, 8, 1)}),
    "loop": (lambda net, x: [x := F.relu(net.parts["conv"](x)) for _ in range(3)][-1], 8 * 64, {"conv": nn.Conv2d(8, 8, 1)}),
}  # fmt: skip


def make(name):
    torch.manual_seed(1)
    body, features, parts = BODIES[name]
    return Network(body, 8, features, copy.deepcopy(parts))


def trained(network, quant, example, steps=2):
    """Prepared, and observed and trained a little on noise."""
    handle = qat.prepare(network, example[:2], quant)
    optimizer = torch.optim.SGD([*network.parameters(), *handle.parameters()], 0.01)
    for _ in range(steps):
        loss = sum(output.square().mean() for output in outputs_of(network(example)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval()
    return handle


def outputs_of(result):
    if isinstance(result, torch.Tensor):
        return [result]
    return list(result.values()) if isinstance(result, dict) else list(result)


@pytest.mark.parametrize("quant", ["w8a8", "w3a5"])
@pytest.mark.parametrize("name", BODIES)
def test_eval_forward_interpreter_and_runtime_agree_on_every_code(name, quant, tmp_path):
    network = make(name)
    images = torch.randn(40, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    trained(network, quant, images)
    program = qat.convert(network)
    with torch.no_grad():
        simulated = network(images)
    assert torch.equal(simulated, program(images))
    qat.export(program, tmp_path / "model.onnx")  # refuses a file that is not integer or not equal
    report = qat.verify(program, tmp_path / "model.onnx", [images], module=network)
    assert report.float_ops == ()
    assert report.mismatches["onnxruntime"].differing == 0
    assert report.mismatches["fake_quant"].differing == 0


@pytest.mark.parametrize("quant", ["w2a2", "w4a4", "w8a3"])
def test_narrow_grids_agree_as_well(quant):
    network = make("conv_batch_norm")
    with torch.no_grad():  # a tiny weight of the batch norm cannot be put at zero on a 2-bit grid
        network.parts["bn"].weight[2] = 0.1
    images = torch.randn(40, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    trained(network, quant, images)
    with torch.no_grad():
        assert torch.equal(network(images), qat.convert(network)(images))


class TwoInTwoOut(nn.Module):
    def __init__(self):
        super().__init__()
        self.left = nn.Linear(6, 4)
        self.right = nn.Linear(3, 4)

    def forward(self, wide, narrow):
        left, right = self.left(wide), F.relu(self.right(narrow))
        return {"sum": left + right, "right": right}


def test_inputs_and_outputs_keep_their_names_and_structure():
    network = TwoInTwoOut()
    inputs = {"narrow": torch.randn(8, 3), "wide": torch.randn(8, 6)}
    handle = qat.prepare(network, {name: tensor[:2] for name, tensor in inputs.items()})
    network(**inputs)
    network.eval()
    program = qat.convert(network)
    assert sorted(edge.name for edge in program.inputs) == ["narrow", "wide"]
    assert [edge.name for edge in program.outputs] == ["sum", "right"]
    real, simulated = program(inputs), network(**inputs)
    assert torch.equal(real["sum"], simulated["sum"])
    assert torch.equal(real["right"], simulated["right"])
    assert handle.quantizers["right.output"].spec.signed is False


def test_a_network_that_is_not_prepared_or_met_no_data_is_refused():
    network = make("identity")
    with pytest.raises(ConversionError, match=r"not prepared; call qat\.prepare"):
        qat.convert(network)
    handle = qat.prepare(network, torch.randn(2, 3, 8, 8))
    with pytest.raises(ObservationError, match="met no data"):
        qat.convert(network)
    handle.set_state(QuantState(observe=False, fake_quantize=False))
    with pytest.raises(ConversionError, match="quantization is off"):
        qat.convert(network)


def test_what_has_no_integer_form_is_listed_with_module_and_line():
    network = make("avg_pool")
    images = torch.randn(4, 3, 8, 8)
    network.body = lambda net, x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)
    qat.prepare(network, images)
    network(images)
    network.eval()
    with pytest.raises(ConversionError, match=r"avg_pool2d.* at .*test_convert\.py:\d+: count_include_pad=False"):
        qat.convert(network)


def test_conversion_leaves_mode_and_weights_as_they_were():
    network = make("conv_batch_norm")
    images = torch.randn(8, 3, 8, 8)
    trained(network, "w8a8", images)
    network.train()
    network.parts["bn"].eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    qat.convert(network)
    assert network.training and not network.parts["bn"].training
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_equal_networks_give_equal_files(tmp_path):
    images = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for name in ("one", "two"):
        network = make("conv_batch_norm")
        trained(network, "w4a8", images)
        qat.convert(network).save(tmp_path / name)
    for file in ("program.json", "program.safetensors"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
