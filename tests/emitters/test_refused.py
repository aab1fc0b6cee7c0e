import pytest

from qat.emitters.refused import Refusal, RefusedError, grouped, in_one_sentence, located
from qat.errors import ExportError
from qat.integer.operations import MaxPool

NO_LOOP = ("there is no loop", "use a convolution")


def value(name, detail=""):
    return Refusal.of_value(name, "its codes are wide", "use 8 bits", detail)


def pool(name, source):
    fields = {"kernel_size": (2,), "stride": (2,), "padding": ((0, 0),), "dilation": (1,), "ceil_mode": False}
    return MaxPool(name=name, source=source, inputs=("x",), output=name, **fields)


def test_what_has_the_same_problem_stands_together():
    refusals = [
        value("x", "16 bits"),
        Refusal.of(pool("lstm", "net.lstm"), *NO_LOOP),
        value("y", "12 bits"),
        value("x", "16 bits"),
        value("z"),
        value("u"),
        value("v"),
    ]
    assert in_one_sentence("litert", refusals) == (
        "litert cannot run this network: value 'x', value 'y', value 'z' and 2 more: its codes are wide (16 bits); "
        "use 8 bits; MaxPool 'lstm' (from net.lstm): there is no loop; use a convolution."
    )
    with pytest.raises(ExportError) as raised:
        raise RefusedError("litert", refusals)
    assert raised.value.refusals == tuple(refusals) and str(raised.value) == in_one_sentence("litert", refusals)


def test_the_operations_of_one_layer_are_one_place():
    refusals = [Refusal.of(pool(name, source), *NO_LOOP) for name, source in (("a", "a"), ("a#2", "a"), ("b", ""))]
    assert [[refusal.name for refusal in group] for group in grouped(refusals)] == [["a", "b"]]
    assert in_one_sentence("c", refusals).startswith("c cannot run this network: MaxPool 'a' and MaxPool 'b': ")


def test_lines_of_the_network_are_named_where_they_are_known():
    lines = {"head": "net.py:12"}
    refusals = [Refusal.of(pool("a", "head"), *NO_LOOP), Refusal.of(pool("b", "other"), *NO_LOOP), value("x")]
    known, unknown, _ = located(refusals, lambda layer: lines.get(layer, ""))
    assert str(known) == "MaxPool 'a' (from head, net.py:12): there is no loop; use a convolution."
    assert unknown == refusals[1]


def test_what_is_about_the_whole_program_names_no_place():
    assert str(Refusal("two pictures are two too many", "take one")) == "two pictures are two too many; take one."
