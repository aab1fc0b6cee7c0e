"""What all fake quantizers share."""

import copy
import pickle

import pytest
import torch
from torch._dynamo.utils import counters

from qat.errors import CheckpointError, ConfigurationError
from qat.quantizers import LearnedFakeQuantize, ObservedFakeQuantize, make_fake_quantize
from qat.spec import ACTIVATION, WEIGHT, QuantSpec

# torch's own compiler instantiates every autograd.Function that it traces, and then warns of it
pytestmark = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")

X = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
PER_CHANNEL = {"shape": (4, 6), "axis": 0}
KINDS = [
    pytest.param(WEIGHT, "weight", PER_CHANNEL, id="observed weight"),
    pytest.param(WEIGHT.with_bits(2), "weight", PER_CHANNEL, id="learned midrise weight"),
    pytest.param(
        QuantSpec(bits=4, granularity="per_group", group_size=3), "weight", PER_CHANNEL, id="learned weight per group"
    ),
    pytest.param(ACTIVATION, "activation", {}, id="observed activation"),
    pytest.param(ACTIVATION.with_bits(4), "activation", {}, id="learned affine activation"),
    pytest.param(ACTIVATION.with_bits(4), "activation", {"nonnegative": True}, id="learned unsigned activation"),
]


def trained(spec, role, options):
    quantizer = make_fake_quantize(spec, name="x", role=role, **options)
    for factor in (1.0, 2.0):
        quantizer(X * factor)
        quantizer.commit()
    return quantizer


def test_the_method_goes_by_the_final_width():
    assert isinstance(make_fake_quantize(ACTIVATION, name="x", role="activation"), ObservedFakeQuantize)
    assert isinstance(make_fake_quantize(ACTIVATION.with_bits(7), name="x", role="activation"), LearnedFakeQuantize)


@pytest.mark.parametrize(
    ("spec", "role", "options", "message"),
    [
        (WEIGHT, "bias", PER_CHANNEL, "the role of x is 'bias'"),
        (WEIGHT, "weight", {}, "x is quantized per_channel but has shape None and axis None"),
        (QuantSpec(signed=False), "weight", {}, "an unsigned symmetric grid"),
    ],
)
def test_what_a_tensor_cannot_have_is_refused(spec, role, options, message):
    with pytest.raises(ConfigurationError, match=message):
        make_fake_quantize(spec, name="x", role=role, **options)


def test_the_last_group_of_a_channel_may_have_fewer_weights():
    spec = QuantSpec(granularity="per_group", group_size=4)
    quantizer = make_fake_quantize(spec, name="x", role="weight", shape=(2, 6), axis=0)
    weight = torch.tensor([[127.0, 1.3, 0.0, 2.0, 0.127, 0.0], [0.0, -254.0, 0.0, 0.0, 0.0, -1.27]])
    expected = torch.tensor([[127.0, 1.0, 0.0, 2.0, 0.127, 0.0], [0.0, -254.0, 0.0, 0.0, 0.0, -1.27]])
    assert torch.allclose(quantizer(weight), expected)
    assert quantizer.qparams().scale.shape == (2, 2)
    assert quantizer.codes(weight).tolist() == [[127, 1, 0, 2, 127, 0], [0, -127, 0, 0, 0, -127]]


@pytest.mark.parametrize(("spec", "role", "options"), KINDS)
def test_copies_pickles_and_checkpoints_are_exact(spec, role, options):
    quantizer = trained(spec, role, options)
    quantizer.set_bits(8, X if role == "weight" else None)
    quantizer.set_state(observe=True, fake_quantize=True)
    restored = make_fake_quantize(spec, name="x", role=role, **options)
    restored.load_state_dict(quantizer.state_dict())
    twins = [copy.deepcopy(quantizer), pickle.loads(pickle.dumps(quantizer)), restored]
    expected = quantizer(3 * X)
    for twin in twins:
        assert twin.bits == 8
        assert torch.equal(twin(3 * X), expected)
        assert all(torch.equal(value, twin.state_dict()[key]) for key, value in quantizer.state_dict().items())


@pytest.mark.parametrize(("spec", "role", "options"), KINDS)
def test_training_and_eval_use_the_same_grid(spec, role, options):
    quantizer = trained(spec, role, options)
    quantizer.set_state(observe=False, fake_quantize=True)
    in_training = quantizer(X)
    assert torch.equal(quantizer.eval()(X), in_training)


@pytest.mark.parametrize(("spec", "role", "options"), KINDS)
def test_the_type_of_the_input_comes_back_and_autocast_changes_nothing(spec, role, options):
    quantizer = trained(spec, role, options).eval()
    half = X.bfloat16()
    assert torch.equal(quantizer(half), quantizer(half.float()).bfloat16())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(quantizer(X), trained(spec, role, options).eval()(X))


@pytest.mark.parametrize(("spec", "role", "options"), KINDS)
def test_casting_the_network_leaves_the_scales_in_float32(spec, role, options):
    quantizer = trained(spec, role, options).eval()
    expected = quantizer(X)
    cast = copy.deepcopy(quantizer).bfloat16().double().half()
    assert torch.equal(cast(X), expected)
    assert all(not v.is_floating_point() or v.dtype == torch.float32 for v in cast.state_dict().values())


@pytest.mark.parametrize(("spec", "role", "options"), KINDS)
def test_off_is_the_identity(spec, role, options):
    quantizer = trained(spec, role, options)
    quantizer.set_state(observe=False, fake_quantize=False)
    assert quantizer(X) is X


@pytest.mark.parametrize(("spec", "role", "options"), KINDS)
def test_compiled_code_equals_eager_and_never_recompiles(spec, role, options):
    torch._dynamo.reset()
    counters.clear()
    eager = trained(spec, role, options)
    module = copy.deepcopy(eager)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    weight = X if role == "weight" else None
    changes = [
        lambda quantizer: None,
        lambda quantizer: quantizer.set_state(observe=False, fake_quantize=True),
        lambda quantizer: quantizer.set_state(observe=True, fake_quantize=False),
        lambda quantizer: quantizer.set_state(observe=True, fake_quantize=True),
        lambda quantizer: quantizer.set_bits(16, weight),
        lambda quantizer: quantizer.set_bits(8, weight),
        lambda quantizer: setattr(quantizer, "freeze_scales", True),
    ]
    for number, change in enumerate(changes):
        x = (X * (1 + number / 8)).requires_grad_()
        outputs = []
        for quantizer, function in ((eager, eager), (module, compiled)):
            change(quantizer)
            rounded = function(x)
            outputs.append((rounded, torch.autograd.grad(rounded.square().sum(), x)[0]))
        assert torch.equal(outputs[0][0], outputs[1][0])
        assert torch.equal(outputs[0][1], outputs[1][1])
    assert all(torch.equal(value, module.state_dict()[key]) for key, value in eager.state_dict().items())
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]


@pytest.mark.parametrize(("spec", "role", "options"), KINDS)
def test_a_quantizer_that_started_compiled_goes_on_in_eager(spec, role, options):
    torch._dynamo.reset()
    quantizer = make_fake_quantize(spec, name="x", role=role, **options)
    in_compiled = torch.compile(quantizer, fullgraph=True, backend="aot_eager")(X)
    assert not torch.equal(in_compiled, X)
    assert torch.equal(quantizer.eval()(X), in_compiled)
    quantizer.commit()
    assert torch.equal(quantizer(X), in_compiled)


def test_an_exported_graph_shows_one_node_per_quantizer():
    quantizer = trained(ACTIVATION, "activation", {}).eval()
    graph = torch.export.export(quantizer, (X,)).graph
    calls = [node for node in graph.nodes if node.op == "call_function"]
    assert [(node.target, node.args[1]) for node in calls] == [(torch.ops.qat.fake_quantize.default, "x")]


def test_measure_once():
    quantizer = make_fake_quantize(ACTIVATION, name="x", role="activation")
    quantizer(torch.tensor([0.0, 255.0]))
    quantizer.set_state(observe=False, fake_quantize=True)
    quantizer.measure = True
    quantizer(torch.tensor([3.5, 12.0, 3.0, 300.0]))  # noise: 0.5 and 45; one of four clamped
    ratio, share = quantizer.measured
    assert share == 0.25
    assert ratio == pytest.approx(10 * torch.tensor((12.25 + 144 + 9 + 90_000) / (0.25 + 45**2)).log10().item())
    assert not quantizer.measure


def test_widths_that_make_no_sense_are_refused():
    quantizer = make_fake_quantize(ACTIVATION.with_bits(4), name="x", role="activation")
    for bits in (3, 9, 32):
        with pytest.raises(ConfigurationError, match=f"the width of x cannot become {bits} bits"):
            quantizer.set_bits(bits)


def test_a_checkpoint_of_a_narrower_config_is_refused():
    narrow = make_fake_quantize(ACTIVATION.with_bits(3), name="x", role="activation")
    wide = make_fake_quantize(ACTIVATION.with_bits(4), name="x", role="activation")
    with pytest.raises(CheckpointError, match="the checkpoint holds x at 3 bits, below the 4 bits configured"):
        wide.load_state_dict(narrow.state_dict())
