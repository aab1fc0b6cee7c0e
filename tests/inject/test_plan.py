"""Where quantizers go, read off the plan of small networks."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from qat.errors import ConfigurationError, PreparationError
from qat.inject.inputs import bind_examples
from qat.inject.plan import make_plan
from qat.inject.record import record
from qat.spec import QuantConfig, QuantSpec, Rule
from qat.targets import ONNXRUNTIME


class Body(nn.Module):
    """Three convolutions, two batch norms, a linear, and a body that calls some of them."""

    def __init__(self, body):
        super().__init__()
        self.a, self.b, self.c, self.shared = (nn.Conv2d(2, 2, 3, padding=1) for _ in range(4))
        self.two = nn.Conv2d(4, 2, 3, padding=1)
        self.bn, self.relu = nn.BatchNorm2d(2), nn.ReLU()
        self.shift = nn.Parameter(torch.ones(2, 1, 1))
        self.body = body

    def forward(self, x):
        return self.body(self, x)


def planned(body, quant="w8a8", target=ONNXRUNTIME):
    network = Body(body)
    recording = record(network, *bind_examples(network, torch.randn(2, 2, 4, 4)))
    return make_plan(recording, QuantConfig.parse(quant), target)


def activations(plan):
    return [name for name, site in plan.sites.items() if site.role == "activation"]


def weights(plan):
    return [name for name, site in plan.sites.items() if site.role == "weight"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        # fused: nothing between the convolution and what runs inside its kernel
        (lambda n, x: F.relu(n.bn(n.a(x))), ["input.x", "a.output"]),
        (lambda n, x: F.relu6(n.relu(n.a(x))), ["input.x", "a.output"]),
        (lambda n, x: n.relu(n.a(x) + x), ["input.x", "a.output", "add.output"]),
        # not fused: the value before is used twice
        (lambda n, x: n.relu(y := n.a(x)) + y.transpose(2, 3), ["input.x", "a.output", "relu.output", "add.output"]),
        (lambda n, x: n.bn(y := n.a(x)) + y, ["input.x", "a.output", "bn.output", "add.output"]),
        # a batch norm behind an activation stands alone
        (lambda n, x: n.bn(F.relu(n.a(x))), ["input.x", "a.output", "bn.output"]),
        # moved values keep their grid
        (lambda n, x: n.b(F.max_pool2d(n.a(x), 2).transpose(2, 3)), ["input.x", "a.output", "b.output"]),
        (lambda n, x: n.b(F.pad(n.a(x), (1, 1))[:, :, 1:]), ["input.x", "a.output", "b.output"]),
        (lambda n, x: n.b(F.adaptive_max_pool2d(n.a(x), 2)), ["input.x", "a.output", "b.output"]),
        (lambda n, x: n.b(F.max_pool2d(n.a(x), 2, return_indices=True)[0]), ["input.x", "a.output", "b.output"]),
        # joined values share one
        (lambda n, x: torch.cat([n.a(x), n.b(x)], 1), ["input.x", "a.output"]),
        (lambda n, x: torch.cat([n.a(x), x], 1), ["input.x"]),
        # a module called twice has two
        (lambda n, x: n.relu(n.b(n.relu(n.a(x)) + x) + x),
         ["input.x", "a.output", "add.output", "b.output", "add#2.output"]),
        # the outputs are demanded as well, the inputs only where they are used
        (lambda n, x: (n.a(x), n.b(x)), ["input.x", "a.output", "b.output"]),
    ],
)  # fmt: skip
def test_activations_are_quantized_where_an_integer_operand_is_demanded(body, expected):
    assert activations(planned(body)) == expected


def test_a_group_names_everything_that_shares_its_grid():
    plan = planned(lambda n, x: torch.cat([n.a(x), F.relu(n.b(x))], 1))
    assert plan.sites["a.output"].shares == ("a", "relu", "cat")
    assert not plan.sites["a.output"].nonnegative


def test_values_that_cannot_be_negative_have_an_unsigned_grid():
    plan = planned(lambda n, x: F.max_pool2d(F.relu(n.a(x)), 2))
    assert plan.sites["a.output"].nonnegative
    assert not plan.sites["input.x"].nonnegative


def test_a_constant_among_joined_values_may_be_negative():
    plan = planned(
        lambda n, x: n.b(torch.cat([F.relu(n.a(x))[:, :1], n.shift.expand(4, 2, 4, 4)[:2, :1]], 1)), target=None
    )
    assert not plan.sites["a.output"].nonnegative


def test_a_tied_weight_has_one_quantizer_as_wide_as_its_widest_use():
    plan = planned(lambda n, x: n.c(n.b(n.b(n.a(x)))), QuantConfig.parse("w4a4"))
    assert weights(plan) == ["a.weight", "b.weight", "c.weight"]
    assert [plan.sites[name].spec.bits for name in weights(plan)] == [8, 4, 8]
    assert plan.sites["b.weight"].shares == ("b", "b#2")


def test_first_and_last_layer_inputs_and_outputs_keep_eight_bits():
    plan = planned(lambda n, x: n.c(F.relu(n.b(n.a(x)))), "w2a2")
    assert {name: site.spec.bits for name, site in plan.sites.items()} == {
        "input.x": 8, "a.output": 2, "b.output": 2, "c.output": 8, "a.weight": 8, "b.weight": 2, "c.weight": 8,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        # three heads, one of them behind a relu, one behind a reshape
        (lambda n, x: (n.a(y := n.bn(n.shared(x))), F.relu(n.b(y)), n.c(y).flatten(1)), ["shared", "a", "b", "c"]),
        (lambda n, x: torch.cat([n.a(y := n.shared(x)), n.b(y)], 1), ["shared", "a", "b"]),
        # two stems; the layer behind them reads no input
        (lambda n, x: n.shared(n.c(n.a(x) + n.b(x.transpose(2, 3)))), ["a", "b", "shared"]),
        # a late layer that also reads the input is in the middle all the same, and so is one behind a last addition
        (lambda n, x: n.c(n.two(torch.cat([n.a(x), x], 1))), ["a", "c"]),
        (lambda n, x: F.relu(n.c(y := n.b(n.a(x)))) + y, ["a", "c"]),
    ],
)
def test_every_branch_has_its_first_and_last_layer(body, kept):
    plan = planned(body, "w2a4", target=None)
    assert [name for name in weights(plan) if plan.sites[name].spec.bits == 8] == [
        f"{name}.weight" for name in sorted(kept, key=lambda name: weights(plan).index(f"{name}.weight"))
    ]


def test_rules_overrule_widths_of_layers_and_edges():
    rules = (Rule("a", weight_bits=4), Rule(type="Conv2d", activation_bits=5), Rule("input", activation_bits=6))
    plan = planned(lambda n, x: n.c(n.b(n.a(x))), QuantConfig(rules=rules))
    assert {name: site.spec.bits for name, site in plan.sites.items()} == {
        "input.x": 6, "a.output": 5, "b.output": 5, "c.output": 5, "a.weight": 4, "b.weight": 8, "c.weight": 8,
    }  # fmt: skip


def test_a_rule_that_matches_nothing_names_near_misses():
    with pytest.raises(ConfigurationError, match=r"rule for 'bb' matches no layer; the nearest names are b"):
        planned(lambda n, x: n.bn(n.b(n.a(x))), QuantConfig(rules=(Rule("bb", weight_bits=4),)))
    with pytest.raises(ConfigurationError, match="of type LSTM matches no layer"):
        planned(lambda n, x: n.a(x), QuantConfig(rules=(Rule(type="LSTM", weight_bits=4),)))


def test_constants_beside_values_have_a_grid_with_a_zero():
    plan = planned(lambda n, x: n.a(x) + n.shift, QuantConfig(weight=QuantSpec(bits=2), edge_bits=2))
    spec = plan.sites["shift"].spec
    assert (spec.bits, spec.symmetric, spec.midrise, plan.sites["shift"].axis) == (3, True, False, None)


def test_islands_stay_in_float():
    rules = (Rule("b", quantize=False),)
    plan = planned(lambda n, x: n.c(n.b(n.a(x))), QuantConfig(rules=rules), target=None)
    assert weights(plan) == ["a.weight", "c.weight"]
    # what the island takes is not demanded, what it gives is
    assert activations(plan) == ["input.x", "b.output", "c.output"]
    assert plan.float_layers == ("b",)


def test_nothing_left_to_quantize_is_refused():
    with pytest.raises(PreparationError, match="nothing to quantize"):
        planned(lambda n, x: n.relu(x))
    with pytest.raises(PreparationError, match="nothing to quantize"):
        planned(lambda n, x: n.a(x), QuantConfig(rules=(Rule("*", quantize=False),)), target=None)


def test_a_folded_batch_norm_and_its_layer_know_each_other():
    plan = planned(lambda n, x: F.relu(n.bn(n.a(x))))
    conv, batch_norm, relu = plan.actions.values()
    assert (conv.batch_norm, batch_norm.folded_into) == (1, 0)
    assert (conv.outputs, batch_norm.outputs, relu.outputs) == ((None,), (None,), ("a.output",))
    assert (conv.input_quantizer, conv.weight_quantizer, conv.bias) == ("input.x", "a.weight", ("args", 2))
    assert conv.head == batch_norm.head == relu.head == 0
