"""The ways in which a value could pass unquantized, and what stands against each."""

import copy
import operator
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import _get_current_function_mode_stack
from torch.utils.checkpoint import checkpoint

import qat
from qat.errors import AddressError, CheckpointError, PreparationError
from qat.inject.handle import handle_of
from qat.inject.operations import operation_of
from qat.schedule import QuantState


class Small(nn.Module):
    """Two linears with `between` in the middle."""

    def __init__(self, between=lambda net, x: F.relu(x)):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(4, 6)
        self.second = nn.Linear(6, 6)
        self.between = between

    def forward(self, x, steps=3):
        self.steps = steps
        return self.second(self.between(self, self.first(x)))


def batch(size=5, features=4):
    return torch.randn(size, features, generator=torch.Generator().manual_seed(7))


def prepared(between, quant="w8a8", example=None, target="onnxruntime"):
    network = Small(between)
    return network, qat.prepare(network, batch() if example is None else example, quant, target)


@pytest.mark.parametrize(
    "function", [torch.add, torch.Tensor.add, torch.Tensor.__add__, operator.add, torch.Tensor.add_, operator.iadd]
)
def test_every_spelling_of_an_operation_has_one_name(function):
    assert operation_of(function).name == "add"


@pytest.mark.parametrize(
    "between",
    [
        lambda net, x: torch.add(x, x),
        lambda net, x: x + x,
        lambda net, x: x.add(x),
        lambda net, x: operator.add(x, x),
        lambda net, x: x.clone().add_(x),
        lambda net, x: operator.iadd(x.clone(), x),
    ],
)
def test_every_spelling_is_quantized_at_its_output(between):
    network, handle = prepared(between)
    assert "add.output" in handle.quantizers
    network(batch())
    assert handle.quantizers["add.output"].ready


def loop(net, x):
    for _ in range(net.steps):
        x = F.relu(net.second(x))
    return x


def test_a_loop_shares_its_addresses_whatever_its_length():
    network, handle = prepared(loop)
    # what enters the loop and what comes round share a grid; the call behind the loop is another address
    assert list(handle.quantizers) == ["input.x", "first.output", "second#2.output", "first.weight", "second.weight"]
    for steps in (2, 3, 7):
        network(batch(), steps)
    network.eval()
    assert torch.equal(qat.convert(network)(batch()), network(batch()))


def test_another_branch_raises_with_its_source_line():
    network, _ = prepared(lambda net, x: F.relu(x) if net.steps == 3 else F.relu(x) + torch.sigmoid(x))
    network(batch())
    with pytest.raises(AddressError, match=r"relu at .*test_guards\.py:\d+ runs after"):
        network(batch(), steps=4)


def test_a_forward_that_ends_early_raises():
    class Leaves(Small):
        def forward(self, x, steps=3):
            x = self.first(x)
            return self.second(x) if steps == 3 else x

    network = Leaves()
    qat.prepare(network, batch())
    with pytest.raises(AddressError, match="ended without reaching 1 of the recorded calls, the first of them second"):
        network(batch(), steps=4)


def relu_as_a_statement(net, x):
    F.relu(x, inplace=True)
    return x


def add_while_another_name_holds_it(net, x):
    y = x
    x += 1.0
    return y


@pytest.mark.parametrize(
    ("between", "like"),
    [
        (relu_as_a_statement, lambda net, x: F.relu(x)),
        (add_while_another_name_holds_it, lambda net, x: x + 1.0),
        (lambda net, x: x.relu_(), lambda net, x: F.relu(x)),
        (lambda net, x: nn.ReLU(inplace=True)(x), lambda net, x: F.relu(x)),
    ],
)
def test_writing_in_place_is_followed(between, like):
    one, _ = prepared(between)
    other, _ = prepared(like)
    assert torch.equal(one(batch()), other(batch()))
    one.eval()
    other.eval()
    assert torch.equal(one(batch()), other(batch()))
    assert torch.equal(qat.convert(one)(batch()), one(batch()))


def write_some_columns(net, x):
    x[:, [0, 2]] = 0.5
    return x


def write_behind_a_view(net, x):
    view = x.view(-1, 2, 3)
    x.add_(1.0)
    return x + view.reshape(-1, 6)


@pytest.mark.parametrize("between", [write_some_columns, write_behind_a_view])
def test_what_cannot_be_followed_in_place_is_refused_with_its_line(between):
    with pytest.raises(PreparationError, match=r"in place .*|test_guards\.py:\d+ writes in place"):
        prepared(between)


class Checkpointed(Small):
    def __init__(self, on, reentrant=False):
        super().__init__()
        self.block = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6))
        self.on = on
        self.reentrant = reentrant

    def forward(self, x):
        x = self.first(x)
        if self.on:
            x = checkpoint(lambda y: F.relu(self.block(y)), x, use_reentrant=self.reentrant)
        else:
            x = F.relu(self.block(x))
        return self.second(x)


@pytest.mark.parametrize("quant", ["w8a8", "w4a4"])
def test_activation_checkpointing_recomputes_under_the_same_quantization(quant):
    gradients = []
    for on in (True, False):
        torch.manual_seed(3)
        network = Checkpointed(on)
        handle = qat.prepare(network, batch(), quant)
        for _ in range(2):
            network.zero_grad()
            network(batch()).square().mean().backward()
        gradients.append([parameter.grad for parameter in (*network.parameters(), *handle.parameters())])
        batches = {int(q.observer.batches) for q in handle.quantizers.values() if q.observer is not None}
        assert batches == {2}
    for with_checkpoint, without in zip(*gradients, strict=True):
        assert torch.equal(with_checkpoint, without)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True:UserWarning")
def test_reentrant_checkpointing_is_refused():
    with pytest.raises(PreparationError, match="pass use_reentrant=False"):
        qat.prepare(Checkpointed(True, reentrant=True), batch())


def test_learned_scales_are_not_written_inside_a_forward():
    network, handle = prepared(loop, "w4a4")
    versions = {name: parameter._version for name, parameter in handle.named_parameters()}
    seen = []
    handle.quantizers["first.output"].register_forward_hook(
        lambda part, inputs, output: seen.append({n: p._version for n, p in handle.named_parameters()} == versions)
    )
    network(batch()).sum().backward()
    assert seen == [True] * 4


def test_the_coverage_gate_names_what_is_not_integer():
    with pytest.raises(PreparationError, match=r"would not run .*cumprod in the network at .*test_guards\.py:\d+"):
        prepared(lambda net, x: torch.cumprod(x, 1))


def test_remove_gives_the_module_back_exactly():
    network = Small()
    keys, attributes, kind = list(network.state_dict()), set(network.__dict__), type(network)
    network.eval()
    before = network(batch())
    network.train()
    handle = qat.prepare(network, batch())
    assert list(network.state_dict()) == keys
    assert type(network) is kind
    handle.remove()
    network.eval()
    assert torch.equal(network(batch()), before)
    assert set(network.__dict__) - {"steps"} == attributes - {"steps"}
    assert handle_of(network) is None


def test_preparing_leaves_mode_buffers_and_random_state_alone():
    network = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(), nn.Linear(6, 2))
    network[1].eval()
    buffers = copy.deepcopy(dict(network.named_buffers()))
    state = torch.random.get_rng_state()
    qat.prepare(network, batch())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert network.training and not network[1].training
    assert all(torch.equal(buffers[name], buffer) for name, buffer in network.named_buffers())


def test_off_means_that_no_mode_is_entered():
    seen = []

    def look(net, x):
        seen.append(len(_get_current_function_mode_stack()))
        return F.relu(x)

    network, handle = prepared(look)
    seen.clear()
    handle.set_state(QuantState(observe=False, fake_quantize=False))
    network(batch())
    handle.set_state(QuantState())
    network(batch())
    assert seen == [0, 1]


@pytest.mark.parametrize(
    ("module", "example", "match"),
    [
        (nn.ReLU(), torch.randn(2, 3), "nothing to quantize"),
        (nn.Linear(3, 2), torch.randn(0, 3), "empty batch"),
        (nn.Linear(3, 2), {"wrong": torch.randn(2, 3)}, "do not fit Linear.forward"),
        (nn.Linear(3, 2), torch.randn(2, 3, dtype=torch.complex64), "dense real tensors"),
        (nn.Linear(3, 2), "text", "hold no tensor"),
    ],
)
def test_what_cannot_be_prepared_is_refused(module, example, match):
    with pytest.raises(PreparationError, match=match):
        qat.prepare(module, example)


def test_a_prepared_or_compiled_module_is_refused():
    network, _ = prepared(lambda net, x: x)
    with pytest.raises(PreparationError, match="prepared already"):
        qat.prepare(network, batch())
    with pytest.raises(PreparationError, match="'0' is prepared already"):
        qat.prepare(nn.Sequential(network), batch())
    with pytest.raises(PreparationError, match="prepare the original module"):
        qat.prepare(torch.compile(nn.Linear(4, 2)), batch())


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2))

    def forward(self, x):
        return self.layers(x)


def test_copies_pickles_and_averages_stay_prepared():
    network, images = Plain(), torch.randn(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    qat.prepare(network, images, "w4a4")
    network(images).sum().backward()
    averaged = torch.optim.swa_utils.AveragedModel(network)
    averaged.update_parameters(network)
    network.eval()
    expected = network(images)
    for twin in (copy.deepcopy(network), pickle.loads(pickle.dumps(network)), averaged.module.eval()):
        assert handle_of(twin) is not handle_of(network)
        assert handle_of(twin).module is twin
        assert torch.equal(twin(images), expected)


def test_a_state_of_another_network_or_width_is_refused():
    _, handle = prepared(lambda net, x: x, "w4a4")
    _, other = prepared(lambda net, x: F.relu(x + 1.0), "w4a4")
    with pytest.raises(CheckpointError, match=r"not this network's: missing \[\], unknown|not this network's: missing"):
        handle.load_state_dict(other.state_dict())
    narrow = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    wide = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 2))
    state = qat.prepare(wide, batch()).state_dict()
    with pytest.raises(CheckpointError, match=r"needs shape \(3,\)"):
        qat.prepare(narrow, batch()).load_state_dict(state)


def test_the_state_of_the_quantizers_continues_exactly():
    networks = [Plain(), Plain()]
    images = torch.randn(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    handles = [qat.prepare(network, images, "w4a4") for network in networks]
    networks[0](images).sum().backward()
    networks[1].load_state_dict(networks[0].state_dict())
    handles[1].load_state_dict(handles[0].state_dict())
    for network in networks:
        network.eval()
    assert torch.equal(networks[0](images), networks[1](images))


def test_linears_alone_leave_the_rest_in_float():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    config = qat.QuantConfig(rules=[qat.Rule("*", quantize=False), qat.Rule(type="Linear", quantize=True)])
    handle = qat.prepare(layer, torch.randn(3, 5, 8), config, target=None)
    weights = [name for name, site in handle.plan.sites.items() if site.role == "weight"]
    assert weights == ["linear1.weight", "linear2.weight"]
    layer(torch.randn(3, 5, 8)).sum().backward()
    inside = ("linear", "matmul", "mul", "softmax", "matmul#2", "linear#2")
    left = ", ".join([*(f"self_attn.{name}" for name in inside), "add", "norm1", "add#2", "norm2"])
    assert f"left in float: {left}\n" in str(handle)
