"""torch.compile of a prepared network: one graph, no recompilation at any change of phase or width but one."""

import dataclasses

import pytest
import torch
from torch import nn

import qat
from qat.errors import AddressError, PreparationError
from qat.schedule import QuantState


class Counting:
    """A backend that counts what it compiles, and runs it as it is."""

    def __init__(self):
        self.graphs = 0

    def __call__(self, graph, example_inputs):
        self.graphs += 1
        return graph.forward


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv1 = nn.Conv2d(2, 4, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.linear = nn.Linear(4, 3)

    def forward(self, x):
        x = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(x))
        y += x
        return self.linear(self.relu(y).mean((2, 3)))


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def images():
    return torch.randn(4, 2, 6, 6, generator=torch.Generator().manual_seed(1))


PHASES = [
    QuantState(observe=False, fake_quantize=False, weight_bits=8, activation_bits=8),
    QuantState(observe=True, fake_quantize=False, weight_bits=8, activation_bits=8),
    QuantState(weight_bits=8, activation_bits=8),
    QuantState(weight_bits=6, activation_bits=6),
    QuantState(weight_bits=4, activation_bits=4),
    QuantState(observe=False, weight_bits=4, activation_bits=4),
    QuantState(observe=False, freeze_scales=True, weight_bits=4, activation_bits=4),
]
FROZEN = QuantState(
    observe=False, freeze_scales=True, freeze_batch_norm=True, weight_bits=4, activation_bits=4, final=True
)


def gradients_of(network, handle, forward):
    """The outputs of `forward`, and the gradients of weights and step sizes."""
    parameters = (*network.parameters(), *handle.parameters())
    outputs = forward(images())
    outputs = list(outputs.values()) if isinstance(outputs, dict) else [outputs]
    gradients = torch.autograd.grad(sum(output.square().sum() for output in outputs), parameters)
    return [*(output.detach() for output in outputs), *gradients]


def assert_agree(compiled, eager, **tolerances):
    for one, other in zip(compiled, eager, strict=True):
        assert torch.allclose(one, other, **tolerances)


def test_only_the_freezing_of_batch_norm_compiles_again_and_steps_agree_with_eager_ones():
    network, backend = Residual(), Counting()
    handle = qat.prepare(network, images(), "w4a4")  # edges at 8 bits are observed, the others learn
    assert {type(quantizer).__name__ for quantizer in handle.quantizers.values()} == {
        "LearnedFakeQuantize",
        "ObservedFakeQuantize",
    }
    network(images())  # ranges and step sizes start in eager code
    compiled = torch.compile(network, fullgraph=True, backend=backend)
    counts = []
    for state in (*PHASES, FROZEN):
        handle.set_state(state)
        for _ in range(2):
            compiled(images()).sum().backward()
        counts.append(backend.graphs)
        if state == PHASES[-2]:
            step, expected = (gradients_of(network, handle, forward) for forward in (compiled, network))
            assert_agree(step, expected, rtol=1e-4, atol=1e-6)
    assert counts[:-1] == [1] * len(PHASES)
    assert counts[-1] == 2


def test_weights_that_a_schedule_turns_on_start_alike_compiled_and_eager():
    scales = []
    for compile_it in (False, True):
        network = Residual()
        handle = qat.prepare(network, images(), "w4a4")
        forward = torch.compile(network, fullgraph=True, backend="eager") if compile_it else network
        for state in (QuantState(observe=False, fake_quantize=False), QuantState()):
            handle.set_state(state)
            forward(images())
        scales.append({name: q.scale_in_force() for name, q in handle.quantizers.items() if q.role == "weight"})
    for name, scale in scales[0].items():
        assert torch.equal(scale, scales[1][name]), name


@pytest.mark.parametrize("in_place", [False, True])
def test_a_network_compiled_before_is_quantized_all_the_same(in_place):
    network = nn.Sequential(nn.Flatten(), nn.Linear(72, 3))
    if in_place:
        network.compile(backend="eager")
        compiled = network
    else:
        compiled = torch.compile(network, backend="eager")
    floats = compiled(images())
    handle = qat.prepare(network, images(), "w2a2")
    compiled(images())
    quantized = compiled(images())
    assert not torch.allclose(floats, quantized)
    levels = quantized.detach() / handle.quantizers["1.output"].scale
    assert torch.allclose(levels, levels.round(), atol=1e-4)


def compile_a_layer(network):
    network.conv1.compile(backend="eager")


def wrap_a_layer(network):
    network.conv1 = torch.compile(network.conv1, backend="eager")


def compile_a_function(network):
    network.bn1.forward = torch.compile(network.bn1.forward, backend="eager")


def compile_the_forward(network):
    network.forward = torch.compile(network.forward, backend="eager")


@pytest.mark.parametrize("change", [compile_a_layer, wrap_a_layer, compile_a_function, compile_the_forward])
def test_a_part_compiled_before_is_refused_with_its_line(change):
    network = Residual()
    change(network)
    with torch.no_grad():
        network(images())
    with pytest.raises(PreparationError, match=r"at .*test_compile\.py:\d+ runs in a part .* given to torch\.compile"):
        qat.prepare(network, images())


def test_a_part_that_dynamo_leaves_alone_is_followed():
    network = Residual()
    network.conv1.forward = torch.compiler.disable(network.conv1.forward)
    qat.prepare(network, images())
    assert network(images()).shape == (4, 3)


class Lists(nn.Module):
    """A loop over layers, writes in place, joined values and a number beside a value."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Conv2d(2, 2, 3, padding=1) for _ in range(2))
        self.linear = nn.Linear(4, 3)

    def forward(self, x):
        for layer in self.layers:
            y = layer(x)
            y.add_(x)
            x = nn.functional.relu(y)
        return {"logits": self.linear(torch.cat([x, 0.5 + x], 1).mean((2, 3))), "features": x}


def test_through_aot_autograd_nothing_recompiles_either_and_steps_agree_with_eager_ones():
    network = Lists()
    handle = qat.prepare(network, images(), "w4a4")
    network(images())
    torch._dynamo.utils.counters.clear()
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    for state in PHASES:
        handle.set_state(state)
        for _ in range(2):
            compiled(images())["logits"].sum().backward()
    handle.set_state(QuantState(observe=False))
    step, expected = (gradients_of(network, handle, forward) for forward in (compiled, network))
    assert_agree(step, expected, rtol=1e-4, atol=1e-5)
    counters = torch._dynamo.utils.counters
    assert not counters["graph_break"]
    assert counters["stats"]["unique_graphs"] == 1


def test_the_steps_of_a_recurrent_layer_train_alike_compiled_and_eager():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.layer, self.head = nn.RNN(4, 5, batch_first=True), nn.Linear(5, 3)

        def forward(self, x):
            return self.head(self.layer(x)[0])

    x, gradients = torch.randn(8, 2, 4, generator=torch.Generator().manual_seed(1)), []
    for compiled in (False, True):
        network = Recurrent()
        handle = qat.prepare(network, x)
        network(x)
        handle.set_state(QuantState(observe=False))
        with torch._dynamo.config.patch(allow_rnn=True):  # Dynamo asks for it
            forward = torch.compile(network, backend=Counting(), fullgraph=True) if compiled else network
            forward(x).square().sum().backward()
        gradients.append([parameter.grad for parameter in network.parameters()])
    for eager, ours in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, eager)


def test_compiled_observation_ends_in_the_ranges_of_eager_observation():
    scales = []
    for compile_it in (False, True):
        network = Lists()
        handle = qat.prepare(network, images(), "w8a8")
        forward = torch.compile(network, fullgraph=True, backend="aot_eager") if compile_it else network
        for _ in range(3):
            forward(images())
        scales.append({name: quantizer.scale for name, quantizer in handle.quantizers.items()})
    for name, scale in scales[0].items():
        assert torch.allclose(scale, scales[1][name], rtol=1e-5), name


def test_another_path_raises_in_compiled_code_too():
    class Branches(Residual):
        def forward(self, x, wide: bool = False):
            return super().forward(torch.sigmoid(x) if wide else x)

    network = Branches()
    qat.prepare(network, images())
    compiled = torch.compile(network, backend="eager")
    compiled(images())
    with pytest.raises(AddressError, match=r"does not take Branches.forward as one graph .*fullgraph=True"):
        compiled(images(), wide=True)
    with pytest.raises(AddressError, match=r"sigmoid at .*test_compile\.py:\d+ runs at the start of the forward"):
        network(images(), wide=True)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_the_default_compiler_takes_one_graph():
    network, plain = Residual(), Residual()
    handle = qat.prepare(network, images(), "w8a8")
    network(images())
    plain.load_state_dict(network.state_dict())
    other = qat.prepare(plain, images(), "w8a8")
    other.load_state_dict(handle.state_dict())
    for each in (handle, other):
        each.set_state(QuantState(observe=False))
    torch._dynamo.utils.counters.clear()
    compiled = torch.compile(network, fullgraph=True)(images())
    assert torch.allclose(compiled, plain(images()), rtol=1e-3, atol=1e-2)
    assert not torch._dynamo.utils.counters["graph_break"]


class Broken(nn.Module):
    """A network that no compiler takes as one graph."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x):
        x = torch.relu(self.a(x))
        torch._dynamo.graph_break()
        return self.b(x)


@pytest.mark.parametrize("in_place", [False, True])
def test_a_network_that_breaks_the_graph_is_refused_while_it_is_quantized(in_place):
    network, x = Broken(), torch.randn(5, 3)
    handle = qat.prepare(network, x, "w8a8")
    compiled = network
    if in_place:
        network.compile(backend="eager")
    else:
        compiled = torch.compile(network, backend="eager")
    with pytest.raises(AddressError, match=r"does not take Broken.forward as one graph .*fullgraph=True"):
        compiled(x)
    handle.remove()
    with torch.no_grad():
        assert torch.equal(compiled(x), network.b(torch.relu(network.a(x))))


def test_batches_of_any_size_are_compiled_once_for_all_sizes():
    network, backend = Residual(), Counting()
    wide = qat.Rule("conv1", activation_bits=8)  # is observed, where the layers behind it learn
    handle = qat.prepare(network, images(), dataclasses.replace(qat.QuantConfig.parse("w4a4"), rules=[wide]))
    large = torch.randn(150, 2, 6, 6)  # 4 * 36 values of 150 images are more than a histogram samples
    network(large)
    compiled = torch.compile(network, fullgraph=True, backend=backend)
    counts = []
    for size in (150, 149, 148, 147):
        compiled(large[:size]).sum().backward()
        counts.append(backend.graphs)
    assert counts[1:] == [2, 2, 2]  # one for the first size, one for any
    assert handle.has_run


def encoder_layer():
    return nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)


@pytest.mark.parametrize(
    ("make", "enabled"),
    [(encoder_layer, True), (encoder_layer, False), (lambda: nn.TransformerEncoder(encoder_layer(), 1), True)],
)
@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True:UserWarning")
def test_a_compiled_transformer_layer_does_not_take_its_fast_path_in_eval_mode(make, enabled):
    torch.manual_seed(0)
    network, x = make(), torch.randn(4, 5, 8)
    qat.prepare(network, x)
    network(x)
    network.eval()
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(enabled)
    try:
        with torch.no_grad():
            fake_quantized = network(x)
            compiled = torch.compile(network, fullgraph=True, backend="eager")(x)
        assert torch.backends.mha.get_fastpath_enabled() is enabled
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
    program = qat.convert(network)
    step = program.value(program.outputs[0].value).grid.scale
    # compiled code rounds in float32 what the eval forward computes as integers do
    assert (compiled - fake_quantized).abs().max() <= 2 * step


def test_a_forward_that_fails_leaves_the_fast_path_as_it_was():
    network = encoder_layer()
    qat.prepare(network, torch.randn(4, 5, 8))
    with pytest.raises(AddressError, match="the network fails on src"):
        network(torch.randn(4, 5, 7))
    assert torch.backends.mha.get_fastpath_enabled()
