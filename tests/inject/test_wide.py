"""Sums of 16 bits in front of norms, by a rule."""

import pytest
import torch
from torch import nn

import qat
from qat.functional import signal_to_quantization_noise
from qat.integer.program import Requantize
from qat.post_training import calibrate

WIDE = [qat.Rule(name, activation_bits=16) for name in ("first", "down", "add*", "norm")]


class Block(nn.Module):
    """A residual block whose sum has a channel far larger than the others, as those of trained transformers."""

    def __init__(self):
        super().__init__()
        self.first, self.up, self.down = nn.Linear(3, 16), nn.Linear(16, 32), nn.Linear(32, 16)
        self.norm, self.last = nn.LayerNorm(16), nn.LayerNorm(16)
        self.gate, self.out = nn.Linear(16, 32), nn.Linear(16, 5)
        self.position = nn.Parameter(torch.randn(6, 16))
        with torch.no_grad():
            self.down.bias[3] += 100
            self.last.weight.fill_(25.0)[3] = 0.0

    def forward(self, x):
        x = self.norm(self.first(x) + self.position)
        hidden = torch.relu(self.up(x)) + torch.relu(self.gate(x))
        return self.out(self.last(x + self.down(hidden)))


def made(rules, target="onnxruntime"):
    torch.manual_seed(0)
    network, x = Block().eval(), torch.randn(32, 6, 3)
    return network, x, calibrate(network, [x], qat.QuantConfig(rules=rules), target)


def noise(rules):
    network, x, handle = made(rules)
    with torch.no_grad():
        fake_quantized = network(x)
    program = qat.convert(network)
    assert torch.equal(program(x), fake_quantized)
    handle.remove()
    with torch.no_grad():
        return signal_to_quantization_noise(network(x), fake_quantized), program


def test_a_large_channel_leaves_steps_for_the_others_and_codes_stay_equal(tmp_path):
    narrow, _ = noise([])
    wide, program = noise(WIDE)
    assert wide > narrow + 10
    qat.export(program, tmp_path / "model.onnx")
    x = torch.randn(9, 6, 3)
    assert qat.verify(program, tmp_path / "model.onnx", [x], repeats=1).ok


def test_layers_read_one_narrow_copy():
    _, program = noise(WIDE)
    copies = {operation.output: operation for operation in program.operations if isinstance(operation, Requantize)}
    assert list(copies) == ["norm.narrow", "add#2.narrow"]
    readers = [operation.name for operation in program.operations if "norm.narrow" in operation.inputs]
    assert readers == ["up", "gate"]
    bits = {value.name: value.grid.bits for value in program.values}
    assert [name for name, width in bits.items() if width == 16] == ["first", "add", "norm", "add#2", "down", "add#3"]
    assert program.value("position").grid.bits == 16


def test_training_passes_gradients_through_wide_values_and_their_copies():
    network, x, handle = made(WIDE)
    handle.set_state(qat.QuantState(observe=True, fake_quantize=True))
    network.train()
    network(x).square().mean().backward()
    assert network.first.weight.grad.abs().sum() > 0 and network.gate.weight.grad.abs().sum() > 0


def test_without_a_target_kernels_multiply_wide_values():
    _, _, handle = made([*WIDE, qat.Rule("out", activation_bits=16)], target=None)
    assert not [name for name in handle.quantizers if name.endswith(".narrow")]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("out", "the output of out has 16 bits by a rule, but it is an output of the network"),
        ("input", "the output of x has 16 bits by a rule, but it is an input of the network"),
        ("relu", "nothing"),
    ],
)
def test_elsewhere_a_rule_for_16_bits_is_refused(rule, message):
    if rule == "relu":
        network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))
        rules, x = [qat.Rule("0", activation_bits=16)], torch.randn(2, 3, 8, 8)
        with pytest.raises(qat.QATError, match="the output of 0 has 16 bits by a rule, but .* makes it"):
            qat.prepare(network, x, qat.QuantConfig(rules=rules))
        return
    with pytest.raises(qat.QATError, match=message):
        made([qat.Rule(rule, activation_bits=16)])
