"""The quantizers of a network: recordings of a few calls, written by hand."""

import pytest

from qat.inject.calls import Call, Operand, Recording
from qat.inject.fusing import Fusion
from qat.inject.groups import groups_of
from qat.inject.operations import Kind, Operation
from qat.inject.sites import Site, Sites
from qat.spec import QuantConfig, QuantSpec, Rule

X, Y = ("input", "x"), ("input", "y")


def result(address, index=0):
    return "call", address, index


def weight(name, *shape):
    return Operand(("args", 1), None, name, shape)


def call(address, name, kind, *operands, layer=None, **fields):
    """A call that reads values and constants, the first of them as its first argument."""
    read = [
        entry if isinstance(entry, Operand) else Operand(("args", place), entry, None, (2, 4))
        for place, entry in enumerate(operands)
    ]
    fields = {"produces": 1, "output_shape": (2, 4), "pointwise": False, "scales": False, "masks": False} | fields
    fields = {"squares": False, "averages_last": False, "of_integers": False} | fields
    return Call(
        address, Operation(name, kind), kind, layer or f"{name}{address}", "", (name,), "net.py:1",
        operands={operand.slot: {operand} for operand in read}, **fields,
    )  # fmt: skip


def linear(address, source, name=None, **fields):
    name = f"linear{address}.weight" if name is None else name
    return call(address, "linear", Kind.COMPUTE, source, weight(name, 4, 4), **fields)


def relu(address, source):
    return call(address, "relu", Kind.FUSE, source, never_negative=True)


def recorded(*calls, outputs=(), inputs=("x",)):
    return Recording(
        calls={entry.address: entry for entry in calls}, outputs=list(outputs), inputs=dict.fromkeys(inputs, (2, 4))
    )


def sites_of(recording, quant="w8a8"):
    fusion = Fusion(recording, {address: call.kind is not Kind.PASS for address, call in recording.calls.items()})
    return Sites(recording, QuantConfig.parse(quant), fusion)


def with_activations(recording, *demanded, quant="w8a8"):
    """(sites, quantizer of each of the values that are demanded)."""
    sites, groups = sites_of(recording, quant), groups_of(recording, masks=())
    names = sites.add_activations(groups, {groups.find(value) for value in demanded})
    return sites, [names[groups.find(value)] for value in demanded]


def test_only_what_is_demanded_has_a_quantizer():
    recording = recorded(linear(0, X), linear(1, result(0)), outputs=[result(1)])
    sites, names = with_activations(recording, X, result(1))
    assert names == list(sites.by_name) == ["input.x", "linear1.output"]


def test_what_is_fused_behind_a_layer_goes_by_its_name_and_tells_its_sign():
    recording = recorded(linear(0, X), relu(1, result(0)), outputs=[result(1)])
    sites, (name,) = with_activations(recording, result(1))
    assert sites.by_name[name] == Site(
        name="linear0.output", role="activation", spec=QuantConfig().activation, layer="linear0", shares=("relu1",),
        shape=(2, 4), nonnegative=True, makers=("linear0.output",),
    )  # fmt: skip


def test_a_shared_grid_is_as_wide_as_its_widest_maker_and_signed_if_one_is():
    joined = call(2, "cat", Kind.JOIN, result(0), result(1))
    recording = recorded(relu(0, X), linear(1, Y), joined, linear(3, result(2)), inputs=("x", "y"), outputs=[result(3)])
    config = QuantConfig(activation=QuantSpec(bits=4, signed=False, symmetric=False), edge_bits=4,
                         rules=(Rule("linear1", activation_bits=6),))  # fmt: skip
    sites, (name,) = with_activations(recording, result(2), quant=config)
    site = sites.by_name[name]
    assert (site.name, site.spec.bits, site.nonnegative) == ("relu0.output", 6, False)
    assert site.shares == ("relu0", "linear1", "cat2")
    assert site.makers == ("relu0.output", "linear1.output")


def test_a_constant_that_is_joined_with_values_may_be_negative():
    padded = call(1, "cat", Kind.JOIN, result(0), weight("token", 1, 4))
    recording = recorded(relu(0, X), padded, linear(2, result(1)), outputs=[result(2)])
    sites, (name,) = with_activations(recording, result(1))
    assert not sites.by_name[name].nonnegative


@pytest.mark.parametrize(("bits", "expected"), [("w4a4", [8, 4, 8]), ("w8a8", [8, 8, 8])])
def test_values_at_the_edges_keep_eight_bits(bits, expected):
    recording = recorded(linear(0, X), linear(1, result(0)), outputs=[result(1)])
    sites, names = with_activations(recording, X, result(0), result(1), quant=bits)
    assert [sites.by_name[name].spec.bits for name in names] == expected


def test_further_results_of_a_call_are_numbered():
    recording = recorded(call(0, "pair", Kind.COMPUTE, X, produces=3), outputs=[result(0, 0), result(0, 2)])
    assert with_activations(recording, result(0, 0), result(0, 2))[1] == ["pair0.output", "pair0.output2"]


def test_a_wide_activation_has_a_narrow_copy_and_a_narrow_one_none():
    recording = recorded(linear(0, X), linear(1, result(0)), outputs=[result(1)])
    config = QuantConfig(rules=(Rule("linear0", activation_bits=16),))
    sites, (narrow, wide) = with_activations(recording, X, result(0), quant=config)
    assert sites.add_narrow(narrow) is None
    assert sites.add_narrow(wide) == "linear0.narrow"
    site = sites.by_name["linear0.narrow"]
    assert (site.spec.bits, site.layer, site.makers) == (8, "linear0", ("linear0.narrow",))
    assert sites.by_name["linear0.output"].spec.bits == 16


def test_a_tied_weight_is_as_wide_as_its_widest_use_and_named_once():
    first, second = linear(0, X, "tied"), linear(1, result(0), "tied")
    sites = sites_of(recorded(first, second, outputs=[result(1)]), "w4a8")
    for use, edge in ((first, False), (second, True)):
        (operand,) = use.constants()
        assert sites.add_weight(use, operand, axis=0, edge=edge) == "tied"
    site = sites.by_name["tied"]
    assert (site.spec.bits, site.axis, site.layer, site.shares) == (8, 0, "linear0", ("linear0", "linear1"))
    assert site.spec.granularity == "per_channel"


def test_a_weight_that_is_also_an_embedding_has_one_scale():
    rows = call(0, "embedding", Kind.CAST, weight("tied", 4, 4))
    head = linear(1, result(0), "tied")
    sites = sites_of(recorded(rows, head, outputs=[result(1)]))
    for use, axis in ((rows, None), (head, 0)):
        (operand,) = use.constants()
        sites.add_weight(use, operand, axis=axis, edge=False)
    site = sites.by_name["tied"]
    assert (site.axis, site.spec.granularity) == (None, "per_tensor")


def test_a_weight_that_is_computed_goes_by_its_layer():
    layer = linear(0, X, "")
    sites = sites_of(recorded(layer, outputs=[result(0)]))
    (operand,) = layer.constants()
    assert sites.add_weight(layer, operand, axis=0, edge=True) == "linear0.weight"


@pytest.mark.parametrize(
    ("name", "rules", "edge_bits", "bits"),
    [
        ("add", (), 8, 8),
        ("add", (), 2, 3),  # with a zero, and so at least three bits
        ("mul", (), 5, 5),
        ("add", (Rule("sum", activation_bits=16),), 8, 16),  # a sum of 16 bits has addends of 16
        ("mul", (Rule("sum", activation_bits=16),), 8, 8),  # a product of 16 bits has factors of 8
    ],
)
def test_a_constant_beside_a_value_has_a_symmetric_grid_of_its_own(name, rules, edge_bits, bits):
    beside = call(0, name, Kind.COMPUTE, X, weight("shift", 4), layer="sum")
    config = QuantConfig(weight=QuantSpec(bits=2), rules=rules, edge_bits=edge_bits)
    sites = sites_of(recorded(beside, outputs=[result(0)]), config)
    (operand,) = beside.constants()
    assert sites.add_constant(beside, operand) == "shift"
    assert sites.by_name["shift"] == Site("shift", "weight", QuantSpec(bits=bits), "sum", ("sum",), (4,))


def test_a_constant_without_a_name_goes_by_its_place():
    beside = call(0, "add", Kind.COMPUTE, X, weight("", 4))
    sites = sites_of(recorded(beside, outputs=[result(0)]))
    (operand,) = beside.constants()
    assert sites.add_constant(beside, operand) == "add0.args.1"


def test_every_stem_and_every_head_is_an_edge_and_what_lies_between_is_not():
    recording = recorded(
        linear(0, X), linear(1, Y), call(2, "add", Kind.COMPUTE, result(0), result(1)),
        linear(3, result(2)), linear(4, result(3)), relu(5, result(4)), linear(6, result(3)),
        outputs=[result(5), result(6)], inputs=("x", "y"),
    )  # fmt: skip
    assert sites_of(recording).edges == {0, 1, 4, 6}
