"""What a prepared network does at each call: read off recordings of a few calls, written by hand."""

import pytest

from qat.inject.actions import Action, Actions, RegionAction
from qat.inject.calls import Call, Operand, Recording
from qat.inject.fusing import Fusion
from qat.inject.groups import groups_of
from qat.inject.operations import Kind, Operation
from qat.inject.sites import Sites
from qat.inject.weighted import WeightedForm
from qat.spec import QuantConfig, Rule

X = ("input", "x")
FIRST, SECOND, THIRD = (("args", place) for place in range(3))


def result(address):
    return "call", address, 0


def constant(name, slot=SECOND, shape=(4,)):
    return Operand(slot, None, name, shape)


def call(address, name, kind, *operands, **fields):
    """A call that reads values, constants, or a set of several in one place."""
    read = [
        entry if isinstance(entry, Operand | set) else Operand(("args", place), entry, None, (2, 4))
        for place, entry in enumerate(operands)
    ]
    slots = {}
    for entry in read:
        for operand in entry if isinstance(entry, set) else {entry}:
            slots.setdefault(operand.slot, set()).add(operand)
    off = dict.fromkeys(("pointwise", "scales", "masks", "squares", "averages_last", "of_integers"), False)
    fields = {"produces": 1, "output_shape": (2, 4), **off, **fields}
    return Call(address, Operation(name, kind), kind, f"{name}{address}", "", (name,), "net.py:1", slots, **fields)


def linear(address, source, *more, **fields):
    return call(
        address, "linear", Kind.COMPUTE, source, constant(f"linear{address}.weight", SECOND, (4, 4)), *more, **fields
    )


def batch_norm(address, source):
    statistics = [constant(f"bn.{name}", ("args", place)) for place, name in enumerate(("mean", "variance"), start=1)]
    return call(address, "batch_norm", Kind.FUSE, source, *statistics)


def planned(*calls, outputs, demanded, config="w8a8", islands=()):
    """(the action of every call, the quantizers); `demanded` are the values that get one."""
    recording = Recording(calls={entry.address: entry for entry in calls}, outputs=list(outputs), inputs={"x": (2, 4)})
    fusion = Fusion(recording, dict.fromkeys(recording.calls, True) | dict.fromkeys(islands, False))
    groups = groups_of(recording, fusion.masks)
    sites = Sites(recording, QuantConfig.parse(config), fusion)
    quantizer_of = sites.add_activations(groups, {groups.find(value) for value in demanded})
    maker = Actions(fusion, groups, sites, quantizer_of, islands, narrows=True)
    return {entry.address: maker.of(entry) for entry in fusion.calls.values()}, sites.by_name


@pytest.mark.parametrize(
    ("fields", "idle"),
    [
        ({}, True),
        ({"outputs": (None, None)}, True),
        ({"masks": True}, True),
        ({"outputs": (None, "y.output")}, False),
        ({"weights": ((SECOND, "y.weight"),)}, False),
        ({"batch_norm": 0}, False),  # the address 0 is one as well
        ({"head": 0}, False),
        ({"in_place": True}, False),
        ({"region": RegionAction("x.output", (FIRST,), ())}, False),
        ({"scores": FIRST}, False),
    ],
)
def test_a_call_just_runs_where_nothing_is_to_be_done(fields, idle):
    assert Action("layer", Kind.COMPUTE, **fields).idle is idle


def test_a_layer_quantizes_its_weight_and_has_its_bias_on_the_accumulators_grid():
    actions, _ = planned(linear(0, X, constant("bias", THIRD)), outputs=[result(0)], demanded=[X, result(0)])
    assert actions[0] == Action(
        layer="linear0", kind=Kind.COMPUTE, shape=(2, 4), weights=((SECOND, "linear0.weight"),),
        outputs=("linear0.output",), bias=THIRD, input_quantizer="input.x", weight_quantizer="linear0.weight",
        operands=((FIRST, "input.x"),), head=0, form=WeightedForm(axis=0, channels=-1),
    )  # fmt: skip


def test_a_batch_norm_and_its_layer_know_each_other_and_the_quantizer_stands_behind_both():
    actions, _ = planned(
        linear(0, X), batch_norm(1, result(0)), call(2, "relu", Kind.FUSE, result(1)), outputs=[result(2)],
        demanded=[X, result(2)],
    )  # fmt: skip
    assert [(action.batch_norm, action.folded_into, action.head) for action in actions.values()] == [
        (1, None, 0), (None, 0, 0), (None, None, 0),
    ]  # fmt: skip
    assert [action.outputs for action in actions.values()] == [(None,), (None,), ("linear0.output",)]
    assert actions[1].weights == ()  # constants of a batch norm are folded, not quantized


def test_a_result_that_nobody_rounds_has_no_head():
    actions, _ = planned(linear(0, X), linear(1, result(0)), outputs=[result(1)], demanded=[X, result(1)])
    assert (actions[0].head, actions[1].head) == (None, 1)


def test_constants_that_are_joined_with_values_lie_on_their_grid():
    joined = call(1, "cat", Kind.JOIN, result(0), constant("token"))
    actions, sites = planned(
        linear(0, X), joined, linear(2, result(1)), outputs=[result(2)], demanded=[X, result(1), result(2)]
    )
    assert actions[1].weights == ((SECOND, "linear0.output"),)
    assert "token" not in sites


def test_a_constant_beside_a_value_has_a_grid_of_its_own():
    added = call(1, "add", Kind.COMPUTE, result(0), constant("shift"))
    actions, sites = planned(linear(0, X), added, outputs=[result(1)], demanded=[X, result(0), result(1)])
    assert actions[1].weights == ((SECOND, "shift"),)
    assert actions[1].operands == ((FIRST, "linear0.output"),)
    assert sites["shift"].role == "weight"


def test_constants_of_a_norm_are_not_quantized():
    norm = call(1, "layer_norm", Kind.COMPUTE, result(0), constant("norm.weight"))
    actions, sites = planned(linear(0, X), norm, outputs=[result(1)], demanded=[X, result(0), result(1)])
    assert actions[1].weights == ()
    assert "norm.weight" not in sites


def test_rows_of_an_embedding_have_one_scale():
    rows = call(0, "embedding", Kind.CAST, constant("table", SECOND, (9, 4)))
    actions, sites = planned(rows, linear(1, result(0)), outputs=[result(1)], demanded=[result(0), result(1)])
    assert actions[0].weights == ((SECOND, "table"),)
    assert sites["table"].axis is None


def test_the_first_state_of_a_loop_lies_on_the_grid_of_those_that_follow():
    state = {Operand(SECOND, None, "state", (2, 4)), Operand(SECOND, result(0), None, (2, 4))}
    step = call(0, "add", Kind.COMPUTE, X, state)
    actions, sites = planned(step, linear(1, result(0)), outputs=[result(1)], demanded=[X, result(0), result(1)])
    assert actions[0].weights == ((SECOND, "add0.output"),)
    assert "state" not in sites


def test_layers_read_a_wide_value_through_a_narrow_copy():
    config = QuantConfig(rules=(Rule("linear0", activation_bits=16),))
    actions, sites = planned(
        linear(0, X), linear(1, result(0)), outputs=[result(1)], demanded=[X, result(0), result(1)], config=config
    )
    assert actions[1].narrowed == ((FIRST, "linear0.narrow", "linear0.output"),)
    assert actions[1].input_quantizer == "linear0.narrow"
    assert (actions[0].narrowed, actions[0].input_quantizer) == ((), "input.x")
    assert sites["linear0.narrow"].spec.bits == 8


def test_an_island_stands_between_the_grids_of_what_it_reads_and_makes():
    island = call(1, "atan2", Kind.COMPUTE, result(0), X, in_place=True)
    actions, _ = planned(
        linear(0, X), island, linear(2, result(1)), outputs=[result(2)],
        demanded=[X, result(0), result(1), result(2)], islands={1},
    )  # fmt: skip
    assert actions[1] == Action(
        layer="atan21", kind=Kind.COMPUTE, shape=(2, 4), outputs=("atan21.output",), head=1,
        operands=((FIRST, "linear0.output"), (SECOND, "input.x")), island=True, in_place=True,
    )  # fmt: skip


def test_functions_of_one_value_are_a_region_with_one_quantizer_at_its_end():
    half = call(1, "exp", Kind.COMPUTE, result(0), pointwise=True)
    whole = call(2, "mul", Kind.COMPUTE, result(0), result(1), pointwise=True)
    actions, _ = planned(linear(0, X), half, whole, outputs=[result(2)], demanded=[X, result(0), result(2)])
    assert actions[1].region == RegionAction("linear0.output", (FIRST,), ())
    assert actions[2].region == RegionAction("linear0.output", (FIRST,), ((SECOND, 1),))
    assert (actions[1].outputs, actions[2].outputs) == ((None,), ("mul2.output",))
    assert (actions[1].head, actions[2].head) == (None, 2)


def test_a_mask_of_scores_leaves_them_on_their_grid_and_what_makes_it_has_none():
    compared = call(1, "mul", Kind.CAST, of_integers=True)
    masked = call(2, "add", Kind.COMPUTE, result(0), result(1), masks=True)
    softmax = call(3, "softmax", Kind.COMPUTE, result(2))
    actions, sites = planned(
        linear(0, X), compared, masked, softmax, outputs=[result(3)], demanded=[X, result(0), result(3)]
    )
    assert (actions[1].masks, actions[1].scores, actions[1].outputs) == (True, None, ())
    assert (actions[2].masks, actions[2].scores, actions[2].outputs) == (True, FIRST, ())
    assert actions[3].operands == ((FIRST, "linear0.output"),)
    assert list(sites) == ["input.x", "linear0.output", "softmax3.output", "linear0.weight"]
