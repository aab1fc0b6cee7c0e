"""Networks with operations in float: eval forward, program and file give the same codes but for the islands' own."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qat
from qat.errors import ConversionError, ProgramError
from qat.lowering.islands import way_out

FUNCTIONS = {
    "grid_sample": lambda n, x: F.grid_sample(x, x[:, :2].permute(0, 2, 3, 1), align_corners=True),
    "atan2": lambda n, x: torch.atan2(x[:, :4], x[:, 4:]),
    "linalg_cross": lambda n, x: torch.linalg.cross(x[:, :3], x[:, 3:6], dim=1),
    "cdist": lambda n, x: torch.cdist(x.flatten(2), n.scale.flatten(1).expand(8, 64)),
    "linalg_vector_norm": lambda n, x: torch.linalg.vector_norm(x, 3, dim=(2, 3)),
    "prod": lambda n, x: x.mean((2, 3)).prod(1, keepdim=True),
    "linalg_det": lambda n, x: torch.linalg.det(x[..., :8]),
    "fold": lambda n, x: F.fold(F.unfold(x, 3), (8, 8), 3),
    "bilinear": lambda n, x: F.bilinear(x.mean(2), x.mean(3), n.parts["bilinear"].weight),
    "pow": lambda n, x: (x[:, :4] + 0.1) ** x[:, 4:],
    "xlogy": lambda n, x: torch.xlogy(x[:, :4], x[:, 4:] + 0.5),
    "linalg_vecdot": lambda n, x: torch.linalg.vecdot(x[:, :4], x[:, 4:]),
    "parts.conv": lambda n, x: n.parts["conv"](x),
    "parts.transposed": lambda n, x: n.parts["transposed"](x),
    "parts.group": lambda n, x: n.parts["group"](x),
    "parts.instance": lambda n, x: n.parts["instance"](x),
    "parts.layer": lambda n, x: n.parts["layer"](x),
    "gelu": lambda n, x: F.gelu(x),
    "log_softmax": lambda n, x: F.log_softmax(x.mean((2, 3)), -1),
    "matmul": lambda n, x: x @ x.mT,
    "cumsum": lambda n, x: x.flatten(2).transpose(1, 2).cumsum(1),
    "rsub": lambda n, x: F.relu(1.0 - x),
}


def parts():
    return {
        "conv": nn.Conv2d(8, 4, 3, padding="same", dilation=2), "group": nn.GroupNorm(2, 8),
        "transposed": nn.ConvTranspose2d(8, 2, 3, stride=2, output_padding=1, padding=1),
        "instance": nn.InstanceNorm2d(8, affine=True), "layer": nn.LayerNorm((8, 8)),
        "bilinear": nn.Bilinear(8, 8, 3, bias=False),
    }  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_eval_forward_program_and_file_agree(tmp_path, trained_network, name):
    quant = qat.QuantConfig(rules=[qat.Rule(name, quantize=False)])
    body = FUNCTIONS[name]
    with torch.no_grad():
        probe = nn.Module()
        probe.parts, probe.scale = nn.ModuleDict(parts()), torch.ones(8, 1, 1)
        features = body(probe, torch.rand(2, 8, 8, 8)).flatten(1).shape[1]
    network, images = trained_network(body, features, parts(), quant, "onnxruntime")
    program = qat.convert(network)
    assert [island.name for island in program.float_operations] == [name]
    with torch.no_grad():
        assert torch.equal(program(images), network(images))
    program.save(tmp_path)
    loaded = qat.IntegerProgram.load(tmp_path)
    assert torch.equal(loaded(images), program(images))
    qat.export(loaded, tmp_path / "model.onnx")
    report = qat.verify(loaded, tmp_path / "model.onnx", [images], module=network, repeats=0)
    assert report.as_exported and not report.ok
    assert report.islands == (name,) and all(f"codes/{name}" in node for node in report.float_ops)
    assert report.mismatches["onnxruntime"].differing == report.mismatches["fake_quant"].differing == 0
    assert report.island_codes.max_lsb <= 1 and report.island_codes.differing <= report.island_codes.total / 100


def test_windows_that_are_merged_with_the_batch(tmp_path):
    class Windows(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.norm, self.last = nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 8)

        def forward(self, x):
            windows = self.first(x).view(x.shape[0], 2, 3, 8).flatten(0, 1)
            return self.last(torch.cumsum(self.norm(windows), 1).view(-1, 2, 3, 8))

    torch.manual_seed(0)
    network, x = Windows(), torch.randn(4, 6, 8)
    qat.prepare(network, x, qat.QuantConfig(rules=[qat.Rule(n, quantize=False) for n in ("norm", "cumsum")]))
    network(x)
    program = qat.convert(network.eval())
    assert [island.merged for island in program.float_operations] == [1, 1]
    assert torch.equal(program(x), network(x))
    qat.export(program, tmp_path / "model.onnx")


def test_an_island_follows_the_length_of_its_input(tmp_path):
    class Tagger(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 2)

        def forward(self, x):
            return self.last(torch.logaddexp(self.first(x), x).cumsum(1))

    torch.manual_seed(0)
    network, x = Tagger(), torch.randn(4, 6, 8)
    rules = [qat.Rule(name, quantize=False) for name in ("logaddexp", "cumsum")]
    qat.prepare(network, x, qat.QuantConfig(rules=rules))
    network(x)
    program = qat.convert(network.eval())
    assert program.lengths
    qat.export(program, tmp_path / "model.onnx")
    report = qat.verify(program, tmp_path / "model.onnx", [x[:, :4], x], repeats=0)
    assert report.as_exported and report.islands == ("logaddexp", "cumsum")


def test_a_refused_node_has_the_rule_that_leaves_its_call_in_float():
    graph = torch.fx.Graph()
    node = graph.call_function(torch.ops.aten.avg_pool2d.default, (graph.placeholder("x"), 2))
    node.meta["stack_trace"] = 'File "/home/user/net.py", line 7, in forward'
    handle = SimpleNamespace(
        plan=SimpleNamespace(may_be_islands={"a": "avg_pool2d", "b.pool": "avg_pool2d", "b.mean": "mean"}),
        sources={"a": "/home/user/net.py:3", "b.pool": "/home/user/net.py:7", "b.mean": "/home/user/net.py:7"},
    )
    assert way_out(handle, node, "avg_pool2d") == (
        '; or leave it in float, as an island between integers, by rules=[qat.Rule("b.pool", quantize=False)] (in a '
        "recipe quant.rules: [{name: 'b.pool', quantize: false}])"
    )
    assert way_out(handle, node, "max_pool2d") == ""


def test_calls_that_a_rule_could_leave_in_float_are_known_beforehand():
    network = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))
    handle = qat.prepare(network, torch.randn(3, 4), qat.QuantConfig(rules=[qat.Rule("0", quantize=False)]))
    assert handle.plan.may_be_islands == {"1": "tanh", "2": "linear"}


def test_a_step_of_a_recurrence_holds_no_island():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.last = nn.GRU(4, 4, batch_first=True), nn.Linear(4, 2)

        def forward(self, x):
            return self.last(self.cell(x)[0])

    network, x = Recurrent(), torch.randn(3, 5, 4)
    qat.prepare(network, x, qat.QuantConfig(rules=[qat.Rule("cell.sigmoid", quantize=False)]))
    network(x)
    with pytest.raises((ConversionError, ProgramError), match="drop the rule that leaves it in float"):
        qat.convert(network.eval())


def test_a_simulation_has_no_islands():
    network, x = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)), torch.randn(3, 4)
    qat.prepare(network, x, qat.QuantConfig(rules=[qat.Rule("0", quantize=False)]), target=None)
    network(x)
    with pytest.raises(ConversionError, match="a rule leaves 0 in float, .* drop the rule"):
        qat.convert(network.eval())
