"""The eval forward equals the integer program on every code: arithmetic by hand, and networks drawn at random."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from qat.errors import ConversionError
from qat.inject import exact
from qat.inject.prepare import prepare
from qat.integer.values import Grid
from qat.lowering.convert import convert
from qat.spec import QuantConfig, QuantSpec

BYTE = Grid(0.5, 128, 0, 255)


def test_a_sum_of_products_becomes_a_code_by_the_rounding_of_the_program():
    # units of 0.25 * 0.5: 3, 5 and -9 of them are 0.75, 1.25 and -2.25 steps of the output
    accumulator = exact.weighted(torch.tensor(0.25), torch.tensor([0.5]), (1, 1))
    real = torch.tensor([[0.375 + 1e-3], [0.625 - 1e-3], [-1.125]])
    assert accumulator.quantize(real, BYTE).flatten().tolist() == [0.5, 0.5, -1.0]


def test_ties_go_to_the_even_step():
    accumulator = exact.weighted(torch.tensor(0.25), torch.tensor(1.0), (1,))
    steps = accumulator.quantize(torch.tensor([0.25, 0.75, 1.25, -0.25]), BYTE) / 0.5
    assert steps.tolist() == [0.0, 2.0, 2.0, 0.0]


def test_fused_activations_become_bounds_of_the_code():
    accumulator = exact.product(0.5, 1.0)
    accumulator.bound(0.0, math.inf)
    accumulator.bound(-math.inf, 1.2)  # 2.4 steps: 2
    assert accumulator.quantize(torch.tensor([-3.0, 0.5, 4.0]), BYTE).tolist() == [0.0, 0.5, 1.0]


def test_codes_saturate_at_the_grid():
    accumulator = exact.product(0.5, 1.0)
    assert accumulator.quantize(torch.tensor([-1e6, 1e6]), BYTE).tolist() == [-64.0, 63.5]


def test_the_code_of_a_bound_is_rounded_half_to_even():
    assert [exact.code_of(bound, BYTE) for bound in (0.0, 0.25, 0.75, -math.inf, math.inf)] == [128, 128, 130, 0, 255]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(-math.inf, math.inf, (0, 255)), (0.0, 1.2, (128, 130)), (70.0, 80.0, (255, 255)), (-80.0, -70.0, (0, 0))],
)
def test_bounds_leave_codes_of_the_grid_and_one_where_they_lie_outside(low, high, expected):
    assert exact.code_bounds(low, high, BYTE) == expected


def test_a_number_beside_a_value_is_one_step_of_a_grid():
    assert exact.number_grid(-0.75).scale == 0.75
    assert exact.number_grid(0.0).scale == 1.0


def test_the_gradient_goes_straight_through_inside_the_grid():
    real = torch.tensor([-100.0, 0.3, 100.0], requires_grad=True)
    exact.product(0.5, 1.0).quantize(real, BYTE).sum().backward()
    assert real.grad.tolist() == [0.0, 1.0, 0.0]


def agrees(network, x, quant):
    """Prepare, train a step, and compare eval forward and program on every value."""
    handle = prepare(network, x[:2], quant)
    optimizer = torch.optim.SGD([*network.parameters(), *handle.parameters()], 0.01)
    for _ in range(2):
        optimizer.zero_grad()
        network(x).square().mean().backward()
        optimizer.step()
    network.eval()
    with torch.no_grad():
        return torch.equal(network(x), convert(network)(x))


class Constants(nn.Module):
    def __init__(self, body):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.body = nn.Linear(6, 6), nn.Linear(6, 3), body
        self.zeros, self.tiny = nn.Parameter(torch.zeros(6)), nn.Parameter(torch.full((6,), 1e-20))

    def forward(self, x):
        return self.last(self.body(self, self.first(x)))


@pytest.mark.parametrize("quant", ["w8a8", "w4a4", "w2a2"])
@pytest.mark.parametrize(
    "body",
    [
        lambda n, x: x + n.zeros,
        lambda n, x: x * n.zeros,
        lambda n, x: x + x * n.zeros,
        lambda n, x: x + n.tiny,
        lambda n, x: torch.add(input=x, other=x),
        lambda n, x: torch.mul(input=n.tiny + 1.0, other=x),
        lambda n, x: torch.mean(input=x.unsqueeze(2), dim=2),
        lambda n, x: torch.amax(input=x.unsqueeze(2), dim=2),
        lambda n, x: F.relu(input=x),
        lambda n, x: F.relu6(x * -1.0) + x,
        lambda n, x: x.clamp(0.1, 0.3),
        lambda n, x: x + 0.0,
        lambda n, x: x + 1,
        lambda n, x: F.relu(F.relu6(x)),
    ],
)
def test_constants_keywords_and_numbers(body, quant):
    x = torch.randn(16, 6, generator=torch.Generator().manual_seed(1))
    assert agrees(Constants(body), x, quant)


@pytest.mark.parametrize("bits", [3, 4, 8])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("observer", ["moving_average", "histogram"])
def test_signed_activations_and_weights_per_tensor(bits, symmetric, observer):
    activation = QuantSpec(bits=bits, signed=True, symmetric=symmetric, observer=observer)
    config = QuantConfig(weight=QuantSpec(bits=bits), activation=activation, edge_bits=bits)
    x = torch.randn(16, 6, generator=torch.Generator().manual_seed(1))
    assert agrees(Constants(lambda n, x: F.relu(x + 0.1) + x), x, config)


def test_long_sums_agree():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(8, 4608), nn.ReLU(), nn.Linear(4608, 10))
    with torch.no_grad():
        network[2].weight.add_(0.02)  # sums far beyond 2^24
    assert agrees(network, torch.randn(32, 8, generator=torch.Generator().manual_seed(1)), "w8a8")


class Drawn(nn.Module):
    """A chain of layers drawn at random, with skips where shapes allow."""

    def __init__(self, steps, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.steps = steps
        self.stem, self.head = nn.Conv2d(2, 4, 3, padding=1), nn.Linear(4, 3)
        self.layers = nn.ModuleList(self._layer(step) for step in steps)
        with torch.no_grad():
            for part in self.modules():
                if isinstance(part, nn.BatchNorm2d):
                    part.weight.copy_(torch.randn(4))
                    part.bias.copy_(torch.randn(4))
                    part.running_mean.copy_(torch.randn(4) * 0.1)
                    part.running_var.copy_(torch.rand(4) + 0.1)

    @staticmethod
    def _layer(step):
        match step:
            case "conv" | "conv_skip":
                return nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4))
            case "depthwise":
                return nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=4)
            case "norm":
                return nn.BatchNorm2d(4)
            case "linear":
                return nn.Linear(4, 4)
        return nn.Identity()

    def forward(self, x):
        x = self.stem(x)
        for step, layer in zip(self.steps, self.layers, strict=True):
            match step:
                case "conv" | "depthwise" | "norm":
                    x = layer(x)
                case "conv_skip":
                    x = x + layer(x)
                case "linear":
                    x = layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
                case "relu":
                    x = F.relu(x)
                case "clamp":
                    x = x.clamp(-0.5, 0.8)
                case "scale":
                    x = x * -0.7
                case "shift":
                    x = 0.3 + x
                case "gate":
                    x = x * x.mean((2, 3), keepdim=True)
                case "pool":
                    x = F.avg_pool2d(x, 3, 1, 1)
                case "max":
                    x = F.max_pool2d(x, 3, 1, 1)
                case "cat":
                    x = torch.cat([x[:, 2:], F.relu(x[:, :2])], 1)
        return self.head(x.mean((2, 3)))


STEPS = "conv conv_skip depthwise norm linear relu clamp scale shift gate pool max cat".split()


@settings(max_examples=12, deadline=None)
@given(
    steps=st.lists(st.sampled_from(STEPS), min_size=1, max_size=5),
    quant=st.sampled_from(["w8a8", "w4a8", "w4a4", "w3a5"]),
    seed=st.integers(0, 1000),
)
def test_networks_drawn_at_random_agree(steps, quant, seed):
    x = torch.randn(6, 2, 5, 5, generator=torch.Generator().manual_seed(seed))
    try:
        assert agrees(Drawn(steps, seed), x, quant)
    except ConversionError as error:  # a layer that makes nothing but zeros has no scale, and is named
        assert "look for a layer whose range collapsed" in str(error)


def test_a_clamp_that_stands_alone_rounds_its_bounds_and_not_the_clamped_values():
    x = torch.randn(6, 2, 5, 5, generator=torch.Generator().manual_seed(0))
    assert agrees(Drawn(["conv", "norm", "clamp"], 0), x, "w8a8")


def test_a_layer_of_nothing_but_zeros_is_named_with_its_line():
    network = Constants(lambda n, x: F.relu(F.relu(x) * -1.0))
    with pytest.raises(
        ConversionError, match=r"mul\.output in .* at .*test_exact\.py:\d+: .*look for a layer whose range collapsed"
    ):
        agrees(network, torch.randn(16, 6), "w8a8")


def test_a_shared_grid_and_a_numbered_layer_do_not_share_a_name():
    assert agrees(Drawn(["gate", "gate"], 0), torch.randn(6, 2, 5, 5), "w8a8")


class NarrowMultipliers(TorchDispatchMode):
    """A device whose matrix units take 8 bits of every factor, as bfloat16 and TF32 units do, and add in float32."""

    MULTIPLY = (torch.ops.aten.convolution, torch.ops.aten.addmm, torch.ops.aten.mm, torch.ops.aten.linear)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket in self.MULTIPLY:
            args = [
                argument.bfloat16().to(argument.dtype) if isinstance(argument, torch.Tensor) else argument
                for argument in args
            ]
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("quant", ["w8a8", "w4a4", "w2a8"])
def test_eval_is_exact_where_the_device_multiplies_in_fewer_bits(quant):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3, groups=2), nn.ReLU(), nn.Flatten(),
        nn.Linear(16 * 16, 12), nn.ReLU6(), nn.Linear(12, 5, bias=False),
    )  # fmt: skip
    prepare(network, torch.randn(4, 3, 8, 8), quant)
    for _ in range(3):
        network(torch.randn(32, 3, 8, 8))
    network.eval()
    x = torch.randn(64, 3, 8, 8)
    expected = convert(network)(x)
    with torch.no_grad(), NarrowMultipliers():
        assert torch.equal(network(x), expected)
