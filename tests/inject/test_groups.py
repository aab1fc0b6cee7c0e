"""Which values share a grid, and what values come from: recordings of a few calls, written by hand."""

from qat.inject.calls import Call, Operand, Recording
from qat.inject.groups import Groups, groups_of, origins_of
from qat.inject.operations import Kind, Operation

X, Y = ("input", "x"), ("input", "y")


def result(address, index=0):
    return "call", address, index


def call(address, kind, *operands, produces=1, of_integers=False):
    """A call whose argument i is one of the values in `operands[i]`."""
    return Call(
        address, Operation("op", kind), kind, f"op#{address}", "", ("op",), "net.py:1", produces=produces,
        of_integers=of_integers,
        operands={
            ("args", i): {Operand(("args", i), value, None, (2,)) for value in values}
            for i, values in enumerate(operands)
        },
    )  # fmt: skip


def recorded(*calls, outputs=()):
    return Recording(calls={entry.address: entry for entry in calls}, outputs=list(outputs))


def alike(groups, *values):
    return len({groups.find(value) for value in values}) == 1


def test_values_that_are_united_stand_for_one_another():
    groups = Groups()
    for first, second in [("a", "b"), ("c", "d"), ("b", "d")]:
        groups.unite(first, second)
    assert {groups.find(value) for value in "abcd"} == {"a"}
    assert groups.find("e") == "e"


def test_what_moves_values_keeps_their_grid_and_what_computes_does_not():
    recording = recorded(
        call(0, Kind.PASS, [X], produces=2), call(1, Kind.COMPUTE, [result(0, 1)]), outputs=[result(1)]
    )
    groups = groups_of(recording, masks=())
    assert alike(groups, X, result(0, 0), result(0, 1))
    assert not alike(groups, X, result(1))


def test_values_that_are_joined_share_a_grid_where_somebody_reads_them():
    joined = call(0, Kind.JOIN, [X], [Y])
    assert alike(groups_of(recorded(joined, outputs=[result(0)]), masks=()), X, Y, result(0))
    assert not alike(groups_of(recorded(joined), masks=()), X, Y)


def test_values_in_one_place_of_a_loop_share_a_grid():
    groups = groups_of(recorded(call(0, Kind.COMPUTE, [X, result(0)]), outputs=[result(0)]), masks=())
    assert alike(groups, X, result(0))


def test_scores_keep_their_grid_when_they_are_masked_and_the_mask_is_not_among_them():
    mask = call(0, Kind.CAST, of_integers=True)
    masked = call(1, Kind.COMPUTE, [X], [result(0)])
    groups = groups_of(recorded(mask, masked, outputs=[result(1)]), masks={1})
    assert alike(groups, X, result(1))
    assert not alike(groups, X, result(0))


def test_values_come_from_inputs_and_computations_through_all_that_moves_them():
    recording = recorded(
        call(0, Kind.COMPUTE, [X]), call(1, Kind.PASS, [result(0)]), call(2, Kind.JOIN, [result(1)], [Y, result(2)])
    )
    assert origins_of(recording, [result(2)]) == {result(0), Y}
    assert origins_of(recording, [X]) == {X}
