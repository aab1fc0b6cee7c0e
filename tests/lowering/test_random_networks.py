"""Networks of random operations at random widths: eval forward, interpreter and ONNX Runtime agree on every code."""

import random

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import qat
from qat.emitters.onnxruntime import float_ops, open_session, run_session
from qat.errors import ConversionError
from qat.integer.interpreter import dequantize
from qat.integer.program import IntegerProgram

CONVOLUTIONS = {3: nn.Conv1d, 4: nn.Conv2d}
BATCH_NORMS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}
ACTIVATIONS = [F.relu, F.relu6, F.hardtanh, lambda x: x.clamp(-0.5, 0.7), lambda x: torch.clamp(x, max=0.3)]
#: Largest value, of one sample, that a step may make.
MOST_ELEMENTS = 2000


def convolution(choose, shape, channels=None):
    inputs = shape[1]
    groups = choose.choice([1] + [count for count in (2, 3, inputs) if inputs % count == 0])
    outputs = channels or groups * choose.choice([1, 2])
    groups = groups if outputs % groups == 0 else 1
    same = channels is not None or choose.random() < 0.3
    geometry = {"padding": "same"} if same else {"stride": choose.choice([1, 2]), "padding": choose.choice([0, 1])}
    kernel, dilation, bias = choose.choice([1, 3]), choose.choice([1, 1, 2]), choose.random() < 0.5
    return CONVOLUTIONS[len(shape)](inputs, outputs, kernel, groups=groups, dilation=dilation, bias=bias, **geometry)


def batch_norm(choose, shape, features=None):
    part = BATCH_NORMS[len(shape)](features or shape[1])
    with torch.no_grad():
        for tensor in (part.weight, part.bias, part.running_mean):
            tensor.normal_(0.0, 0.7)
        part.running_var.uniform_(0.2, 1.2)
    return part


def folded(choose, shape):
    conv = convolution(choose, shape)
    return nn.Sequential(conv, batch_norm(choose, shape, conv.out_channels), choose.choice([nn.ReLU(), nn.ReLU6()]))


class Residual(nn.Module):
    def __init__(self, choose, shape):
        super().__init__()
        self.conv, self.norm = convolution(choose, shape, channels=shape[1]), batch_norm(choose, shape)

    def forward(self, x):
        return F.relu(self.norm(self.conv(x)) + x)


def pool(choose, shape):
    dims = len(shape) - 2
    size, stride, padding = choose.choice([2, 3]), choose.choice([1, 2]), choose.choice([0, 1])
    adaptive = choose.choice([1, 2] if all(extent % 2 == 0 for extent in shape[2:]) else [1])
    return [
        {1: nn.MaxPool1d, 2: nn.MaxPool2d}[dims](size, stride, padding, ceil_mode=choose.random() < 0.5),
        {1: nn.AvgPool1d, 2: nn.AvgPool2d}[dims](size, stride, padding),
        {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d}[dims](adaptive),
        {1: nn.AdaptiveMaxPool1d, 2: nn.AdaptiveMaxPool2d}[dims](adaptive),
    ][choose.randrange(4)]


def reduction(choose, shape):
    dims = choose.sample(range(1, len(shape)), choose.randint(1, len(shape) - 2))
    kind, keepdim = choose.choice([torch.mean, torch.amax]), choose.random() < 0.5
    return lambda x: kind(x, dims, keepdim=keepdim)


def movement(choose, shape):
    dim = choose.randrange(1, len(shape))
    order = choose.sample(range(1, len(shape)), len(shape) - 1)
    return choose.choice([
        lambda x: x.permute(0, *order),
        lambda x: x.transpose(1, -1),
        lambda x: x.flatten(dim),
        lambda x: x.reshape(x.shape[0], -1, x.shape[1]),
        lambda x: x.unsqueeze(dim).squeeze(dim),
        lambda x: x[(slice(None),) * dim + (slice(1, None, 2),)],
        lambda x: F.pad(x, (1, 2)),
        lambda x: x.split(max(x.shape[dim] // 2, 1), dim)[-1],
        lambda x: x.chunk(2, dim)[0],
        lambda x: x.unbind(dim)[-1],
    ])  # fmt: skip


def number(choose, shape):
    value = choose.choice([0.5, -1.3, 2])
    return choose.choice([lambda x: x + value, lambda x: x * value, lambda x: value + x])


ONE_OPERAND = {  # name: (smallest rank, largest rank, makes the step)
    "conv": (3, 4, convolution),
    "conv, batch norm, relu": (3, 4, folded),
    "residual": (3, 4, Residual),
    "batch norm": (2, 4, batch_norm),
    "linear": (2, 4, lambda choose, shape: nn.Linear(shape[-1], choose.choice([1, 4]))),
    "activation": (2, 4, lambda choose, shape: choose.choice(ACTIVATIONS)),
    "pool": (3, 4, pool),
    "reduction": (3, 4, reduction),
    "movement": (2, 4, movement),
    "number": (2, 4, number),
    "dropout": (2, 4, lambda choose, shape: nn.Dropout(0.3)),
}
TWO_OPERANDS = [
    lambda a, b: a + b,
    lambda a, b: a * b,
    lambda a, b: torch.cat([a, b], 1),
    lambda a, b: torch.stack([a, b], -1),
]


class RandomNetwork(nn.Module):
    """2 to 6 random steps on one or two inputs, and a linear head on each of the last two values."""

    def __init__(self, choose):
        super().__init__()
        shape = (2, choose.randint(1, 4), *[choose.choice([6, 8, 9]) for _ in range(choose.choice([1, 2]))])
        self.inputs = [shape[1:]] * choose.choice([1, 1, 2])
        self.layers, self.steps = nn.ModuleList(), []
        self.as_dict = choose.random() < 0.5
        values = [torch.randn(2, *shape) for shape in self.inputs]
        self.eval()
        for _ in range(choose.randint(2, 6)):
            self._add_step(choose, values)
        self.heads = nn.ModuleList(nn.Linear(value.flatten(1).shape[1], 3) for value in values[-2:])

    def _add_step(self, choose, values):
        while True:  # until a step fits
            index = choose.randrange(max(len(values) - 3, 0), len(values))
            rank = values[index].dim()
            if choose.random() < 0.25:
                partners = [place for place, value in enumerate(values) if value.dim() == rank]
                step, operands = choose.choice(TWO_OPERANDS), (index, choose.choice(partners))
            else:
                lowest, highest, make = ONE_OPERAND[choose.choice(list(ONE_OPERAND))]
                if not lowest <= rank <= highest:
                    continue
                step, operands = make(choose, tuple(values[index].shape)), (index,)
            try:
                result = (step.eval() if isinstance(step, nn.Module) else step)(*[values[place] for place in operands])
            except (RuntimeError, IndexError):
                continue
            if 2 <= result.dim() <= 4 and 0 < result[0].numel() <= MOST_ELEMENTS:
                break
        if isinstance(step, nn.Module):
            self.layers.append(step)
        self.steps.append((step, operands))
        values.append(result)

    def forward(self, *inputs):
        values = list(inputs)
        for step, operands in self.steps:
            values.append(step(*[values[place] for place in operands]))
        first, second = (head(value.flatten(1)) for head, value in zip(self.heads, values[-2:], strict=True))
        return {"first": first, "second": second} if self.as_dict else (first, second)


def leaves(output):
    return list(output.values()) if isinstance(output, dict) else list(output)


def every_code(network, program):
    """Inputs that hold every code of their grid."""
    grids = {edge.name: program.value(edge.value).grid for edge in program.inputs}
    samples = []
    for place, shape in enumerate(network.inputs):
        grid = grids.get(f"inputs.{place}", next(iter(grids.values())))
        codes = torch.arange(grid.quant_min, grid.quant_max + 1)
        count = 256 * torch.Size(shape).numel()
        samples.append(dequantize(codes.repeat(count // len(codes) + 1)[:count].reshape(256, *shape), grid))
    return samples


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_random_networks_agree_on_every_code(tmp_path_factory, seed):
    choose = random.Random(seed)
    torch.manual_seed(seed)
    network = RandomNetwork(choose).train()
    quant = f"w{choose.choice([2, 3, 4, 5, 6, 7, 8])}a{choose.choice([2, 3, 4, 5, 6, 7, 8])}"

    def batch(size):
        return [torch.randn(size, *shape) for shape in network.inputs]

    handle = qat.prepare(network, tuple(batch(4)), quant)
    optimizer = torch.optim.SGD([*network.parameters(), *handle.parameters()], 0.01)
    for _ in range(2):
        optimizer.zero_grad()
        sum(output.square().mean() for output in leaves(network(*batch(8)))).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
    network.eval()
    try:
        program = qat.convert(network)
    except ConversionError as error:
        assert "range collapsed" in str(error)  # a relu that lets nothing through
        return
    folder = tmp_path_factory.mktemp("random")
    qat.export(program, folder / "model.onnx")
    assert float_ops(folder / "model.onnx") == []
    program.save(folder)
    loaded = IntegerProgram.load(folder)
    loaded.save(folder / "again")
    for name in ("program.json", "program.safetensors"):
        assert (folder / name).read_bytes() == (folder / "again" / name).read_bytes()
    session = open_session(folder / "model.onnx")
    extremes = torch.tensor([1e30, -1e30, float("inf"), -float("inf"), 0.0, 1e-40])
    huge = [extremes[torch.randint(0, 6, (3, *shape))] for shape in network.inputs]
    for inputs in (batch(1), batch(2), batch(37), huge, every_code(network, program)):
        named = {edge.name: inputs[int(edge.name.rpartition(".")[2])] for edge in program.inputs}
        interpreted = leaves(loaded(named))
        runtime = run_session(session, named)
        with torch.no_grad():
            simulated = leaves(network(*inputs))
        for edge, expected, real in zip(program.outputs, interpreted, simulated, strict=True):
            assert torch.equal(runtime[edge.name], expected)
            assert torch.equal(real, expected)
