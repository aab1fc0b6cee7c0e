"""What the mode does to a running network: autocast, writes in place, gradients, other types."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from qat.inject.prepare import prepare
from qat.lowering.convert import convert
from qat.schedule import QuantState
from qat.spec import QuantConfig, QuantSpec


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.branch, self.head = nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 5)

    def forward(self, x):
        x = F.relu(self.norm(self.stem(x)))
        x = F.relu(self.branch(x) + x)
        return self.head(x.mean((2, 3)))


def images(count=16):
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def prepared(quant="w8a8", **keywords):
    network = Residual()
    handle = prepare(network, images(), quant, **keywords)
    network(images())
    return network, handle


@pytest.mark.parametrize(("quant", "compiled"), [("w8a8", False), ("w4a4", False), ("w4a4", True)])
def test_under_autocast_codes_and_gradients_are_those_of_float32(quant, compiled):
    torch._dynamo.reset()
    results = []
    for autocast in (False, True):
        network, handle = prepared(quant)
        forward = torch.compile(network, fullgraph=True, backend="eager") if compiled else network
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            trained = forward(images())
        trained.square().mean().backward()
        network.eval()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast), torch.no_grad():
            evaluated = network(images())
        gradients = [parameter.grad for parameter in (*network.parameters(), *handle.parameters())]
        results.append([trained.detach(), evaluated, *gradients])
    assert all(torch.equal(plain, narrow) for plain, narrow in zip(*results, strict=True))


def test_autocast_alone_would_not_be_faithful():
    """What the guard is for: the codes that bfloat16 sums of the same codes give."""
    network, handle = prepared()
    network.eval()
    x, weight = handle.quantizers["input.x"](images()), handle.quantizers["stem.weight"](network.stem.weight)
    scale = (network(images()).detach().abs().amax() / 127).item()
    with torch.autocast("cpu", torch.bfloat16):
        narrow = F.conv2d(x, weight).float()
    differing = (torch.round(narrow / scale) != torch.round(F.conv2d(x, weight) / scale)).float().mean()
    assert differing > 0.1


def test_float_phases_keep_autocast():
    network, handle = prepared()
    handle.set_state(QuantState(observe=True, fake_quantize=False))
    with torch.autocast("cpu", torch.bfloat16):
        assert network(images()).dtype == torch.bfloat16


def test_bfloat16_inputs_are_widened_under_autocast():
    network, handle = prepared()
    network.eval()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        narrow = network(images().bfloat16())
    assert torch.equal(narrow, network(images().bfloat16().float()).detach())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_network_that_was_cast_runs_and_converts(dtype):
    network, handle = prepared()
    network.to(dtype)
    assert network(images().to(dtype)).dtype == dtype
    network.eval()
    with torch.no_grad():
        output = network(images().to(dtype))
    assert output.dtype == dtype and bool(output.isfinite().all())
    program = convert(network)
    if dtype is torch.float64:
        assert torch.equal(output.float(), program(images()))
    assert next(network.parameters()).dtype == dtype


class InPlace(nn.Module):
    def __init__(self, body):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.body = nn.Linear(4, 6), nn.Linear(6, 3), body

    def forward(self, x):
        return self.second(self.body(self, self.first(x)))


def relu_then_drop(net, x):
    return F.dropout(F.relu(x, inplace=True), 0.0, net.training, inplace=True)


def squeeze(net, x):
    x = x.relu_()
    x.unsqueeze_(1)
    x.squeeze_(1)
    return x


def keyword(net, x):
    F.relu(input=x, inplace=True)
    return x


def several(net, x):
    y = x
    y.mul_(2.0)
    y.add_(1.0).clamp_(min=0.0)
    return x


@pytest.mark.parametrize("quant", ["w8a8", "w4a4"])
@pytest.mark.parametrize(
    ("body", "like"),
    [
        (relu_then_drop, lambda net, x: F.relu(x)),
        (squeeze, lambda net, x: F.relu(x)),
        (keyword, lambda net, x: F.relu(x)),
        (several, lambda net, x: (x * 2.0 + 1.0).clamp(min=0.0)),
    ],
)
def test_writes_in_place_give_the_values_and_gradients_of_new_tensors(body, like, quant):
    results = []
    for variant in (body, like):
        network = InPlace(variant)
        handle = prepare(network, torch.ones(3, 4), quant)
        x = torch.randn(6, 4, generator=torch.Generator().manual_seed(2))
        for _ in range(2):
            network.zero_grad()
            output = network(x)
            output.square().sum().backward()
        gradients = [parameter.grad for parameter in (*network.parameters(), *handle.parameters())]
        network.eval()
        with torch.no_grad():
            results.append([output.detach(), *gradients, network(x), convert(network)(x)])
    assert torch.equal(results[0][-1], results[0][-2])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_the_input_that_a_network_writes_into_is_left_alone():
    class Writes(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 2)

        def forward(self, x):
            x.mul_(2.0)
            return self.linear(x)

    network, x = Writes(), torch.ones(2, 4)
    prepare(network, x.clone())
    network(x)
    assert torch.equal(x, torch.ones(2, 4))


def test_eval_mode_has_the_gradient_of_the_straight_through_estimator():
    network, _ = prepared()
    network.eval()
    x = images().requires_grad_()
    network(x).square().sum().backward()
    quantized = [x.grad, *(parameter.grad for parameter in network.parameters())]
    floating = Residual()
    floating.load_state_dict(network.state_dict())
    floating.eval()
    y = images().requires_grad_()
    floating(y).square().sum().backward()
    for one, other in zip(quantized, [y.grad, *(p.grad for p in floating.parameters())], strict=True):
        assert F.cosine_similarity(one.flatten(), other.flatten(), 0) > 0.99


def test_eval_mode_is_the_same_with_and_without_gradients():
    network, _ = prepared("w4a4")
    network.eval()
    with torch.no_grad():
        expected = network(images())
    assert torch.equal(network(images()), expected)


class Mixed(nn.Module):
    def forward(self, x):
        rows = x.unflatten(1, (2, 3))
        return x + F.scaled_dot_product_attention(rows, rows, rows).flatten(1)


class Blocks(nn.Module):
    """Checkpointed blocks, one of them a layer whose parts are recorded each."""

    def __init__(self, on):
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.ReLU()) for _ in range(3))
        self.blocks.append(nn.Sequential(Mixed(), nn.ReLU()))
        self.head, self.on = nn.Linear(6, 2), on

    def forward(self, x):
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.on else block(x)
        return self.head(x)


@pytest.mark.parametrize("frozen", [False, True])
def test_checkpointed_blocks_recompute_bit_for_bit_in_every_phase(frozen):
    results = []
    for on in (False, True):
        network = Blocks(on)
        handle = prepare(network, torch.ones(4, 6), "w4a4")
        x = torch.randn(8, 6, generator=torch.Generator().manual_seed(2))
        network(x)
        handle.set_state(QuantState(observe=not frozen, freeze_batch_norm=frozen))
        network(x).square().sum().backward()
        gradients = [p.grad for p in (*network.parameters(), *handle.parameters()) if p.grad is not None]
        results.append([*gradients, *(t for state in handle.state_dict().values() for t in state.values())])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_every_learned_scale_has_a_gradient_in_every_phase_that_quantizes():
    network, handle = prepared("w4a4")
    for state in (
        QuantState(),
        QuantState(observe=False),
        QuantState(weight_bits=6, activation_bits=6),
        QuantState(freeze_batch_norm=True),
    ):
        handle.set_state(state)
        for parameter in handle.parameters():
            parameter.grad = None
        network(images()).square().sum().backward()
        assert all(parameter.grad is not None for parameter in handle.parameters())


def test_several_outputs_of_one_operation_are_quantized_in_eval_mode_too():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
    x = torch.randn(3, 5, 8)
    handle = prepare(layer, x, target=None)
    layer(x)
    layer.eval()
    output = layer(x)
    scale = handle.quantizers["norm2.output"].qparams().scale
    assert torch.allclose(output / scale, torch.round(output / scale), atol=1e-3)


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1)), torch.ones(2, 2, 5, 5)),
        (nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)), torch.ones(2, 4)),
    ],
)
def test_weights_in_groups_run_in_every_phase(layer, x):
    config = QuantConfig(weight=QuantSpec(bits=4, granularity="per_group", group_size=2))
    x = x * torch.linspace(-1, 1, x[0].numel()).view(x[0].shape)
    prepare(layer, x, config, target=None)
    layer(x).sum().backward()
    layer.eval()
    quantized = layer(x)
    layer.train()
    layer.forward.__self__.set_state(QuantState(observe=False, freeze_batch_norm=True))
    assert torch.allclose(layer(x), quantized, atol=1e-5)


def test_transposed_convolutions_in_groups_run_in_every_phase():
    network = nn.Sequential(nn.ConvTranspose1d(4, 6, 3, groups=2), nn.ReLU(), nn.Conv1d(6, 2, 1))
    x = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(1))
    prepare(network, x, target=None)
    network(x).sum().backward()
    assert network.eval()(x).shape == (3, 2, 7)
