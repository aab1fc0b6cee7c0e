"""Whole networks: the eval forward, the integer program and the file in LiteRT give the same codes."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qat
import qat.emitters.litert as emitter
from qat.integer.semantics import for_runtime


class Digits(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.second, self.head = nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.Linear(64, 10)

    def forward(self, x):
        x = F.relu(self.second(F.relu(self.norm(self.first(x)))))
        return self.head(F.max_pool2d(x, 2).flatten(1))


class Block(nn.Module):
    """Two convolutions; a shortcut that is cut and padded where they halve the size."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(outputs) for _ in range(2))
        self.stride, self.more = stride, (outputs - inputs) // 2

    def forward(self, x):
        y = self.norms[1](self.second(F.relu(self.norms[0](self.first(x)))))
        if self.stride > 1:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.more, self.more))
        return F.relu(x + y)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 3, 1, 1), nn.Linear(32, 10)
        self.blocks = nn.Sequential(Block(8, 8, 1), Block(8, 16, 2), Block(16, 32, 2))

    def forward(self, x):
        return self.head(self.blocks(F.relu(self.stem(x))).mean((2, 3)))


class Inverted(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        width = 4 * inputs
        self.layers = nn.Sequential(
            nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU6(),
            nn.Conv2d(width, width, 3, stride, 1, groups=width, bias=False), nn.BatchNorm2d(width), nn.ReLU6(),
            nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs),
        )  # fmt: skip
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x):
        return x + self.layers(x) if self.adds else self.layers(x)


class Mobile(nn.Sequential):
    def __init__(self):
        super().__init__(
            nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU6(),
            Inverted(8, 8, 1), Inverted(8, 16, 2), Inverted(16, 16, 1),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.1), nn.Linear(16, 10),
        )  # fmt: skip


NETWORKS = {"digits": (Digits, (1, 8, 8)), "residual": (Residual, (3, 16, 16)), "mobile": (Mobile, (3, 24, 24))}


def prepared(kind, shape, quant):
    network = kind().train()
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias)
    qat.prepare(network, torch.randn(8, *shape), quant=quant, target="litert")
    for _ in range(3):
        network(torch.randn(8, *shape))
    return network.eval()


@pytest.mark.parametrize("quant", ["w8a8", "w4a8", "w4a4", "w2a2"])
@pytest.mark.parametrize("name", NETWORKS)
def test_eval_program_and_file_are_equal_on_every_code(tmp_path, name, quant):
    kind, shape = NETWORKS[name]
    network = prepared(kind, shape, quant)
    program = qat.convert(network)
    assert for_runtime(program, "litert") is program
    path = tmp_path / "model.tflite"
    qat.export(program, path, runtime="litert")
    assert emitter.float_ops(path) == []
    x = torch.randn(48, *shape)
    with torch.no_grad():
        expected = network(x)
    assert torch.equal(program(x), expected)
    (edge,) = program.inputs
    (result,) = emitter.run_session(emitter.open_session(path), {edge.name: x}).values()
    assert torch.equal(result, expected)


def test_a_program_of_another_target_takes_the_rounding_of_litert(tmp_path):
    torch.manual_seed(3)
    program = qat.quantize(Residual(), [torch.randn(8, 3, 16, 16)], quant="w8a8")
    qat.export(program, tmp_path / "model.tflite", runtime="litert")
    session = emitter.open_session(tmp_path / "model.tflite")
    x = torch.randn(64, 3, 16, 16)
    (result,) = emitter.run_session(session, {program.inputs[0].name: x}).values()
    assert torch.equal(result, for_runtime(program, "litert")(x))
    assert not torch.equal(result, program(x))


def test_inputs_beside_a_tie_are_rounded_as_the_file_rounds_them(tmp_path):
    network = prepared(*NETWORKS["digits"], "w8a8")
    program = qat.convert(network)
    qat.export(program, tmp_path / "model.tflite", runtime="litert")
    (edge,) = program.inputs
    grid = program.value(edge.value).grid
    halves = (torch.arange(grid.quant_min, grid.quant_max) - grid.zero_point + 0.5) * grid.scale
    around = torch.cat([halves, torch.nextafter(halves, halves * 2), torch.nextafter(halves, halves * 0)])
    x = around[torch.randint(len(around), (48, 1, 8, 8))]
    session = emitter.open_session(tmp_path / "model.tflite")
    (result,) = emitter.run_session(session, {edge.name: x}).values()
    with torch.no_grad():
        assert torch.equal(network(x), result)
    assert torch.equal(program(x), result)


class Body(nn.Module):
    """Two convolutions, a layer over channels, and a line that joins what they make."""

    def __init__(self, body):
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.up, self.body = nn.ConvTranspose2d(4, 4, 4, 2, 1), body

    def forward(self, x):
        return self.body(self, x)


def attention(x):
    """Every place looks at all others, with its own codes as query, key and value."""
    tokens = x.flatten(2).transpose(1, 2)
    shares = (tokens @ tokens.transpose(1, 2) * 0.5).softmax(-1)
    return (shares @ tokens).transpose(1, 2).reshape(x.shape)


BODIES = {
    "difference": lambda net, x: net.first(x) - net.second(x),
    "gate": lambda net, x: net.first(x) * torch.sigmoid(net.second(x)),
    "numbers": lambda net, x: F.relu(net.first(x) * -1.7 + 0.3),
    "clamp": lambda net, x: F.hardtanh(net.first(x) + x),
    "join": lambda net, x: torch.cat([net.first(x), F.relu(net.second(x)), x], 1).flip(3),
    "squeeze": lambda net, x: x * F.hardsigmoid(net.first(x).mean((2, 3), keepdim=True)),
    "up": lambda net, x: F.gelu(net.up(net.first(x))),
    "bilinear": lambda net, x: F.interpolate(net.first(x), scale_factor=2, mode="bilinear"),
    "nearest": lambda net, x: F.interpolate(F.silu(net.first(x)), scale_factor=2),
    "shuffle": lambda net, x: net.second(net.first(x).unflatten(1, (2, 2)).transpose(1, 2).flatten(1, 2)),
    "attention": lambda net, x: net.second(attention(net.first(x))),
    "tokens": lambda net, x: F.hardswish(net.first(x)).flatten(2).transpose(1, 2).mean(1),
}


@pytest.mark.parametrize("name", BODIES)
def test_lines_of_all_kinds_are_equal_on_every_code(tmp_path, name):
    network = prepared(lambda: Body(BODIES[name]), (4, 6, 6), "w8a8")
    program = qat.convert(network)
    qat.export(program, tmp_path / "model.tflite", runtime="litert")
    x = torch.randn(48, 4, 6, 6)
    with torch.no_grad():
        expected = network(x)
    assert torch.equal(program(x), expected)
    (edge,) = program.inputs
    (result,) = emitter.run_session(emitter.open_session(tmp_path / "model.tflite"), {edge.name: x}).values()
    assert torch.equal(result, expected)


def test_gradients_pass_through_the_eval_forward():
    network = prepared(*NETWORKS["residual"], "w8a8")
    x = torch.randn(2, 3, 16, 16, requires_grad=True)
    network(x).sum().backward()
    assert torch.isfinite(x.grad).all() and (x.grad != 0).any()
