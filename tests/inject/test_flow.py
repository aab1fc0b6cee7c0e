"""Producers and readers of values, seen through what leaves values as they are."""

import torch
import torch.nn.functional as F
from torch import nn

from qat.inject.flow import Flow, is_identity, with_calls_in_order
from qat.inject.inputs import bind_examples
from qat.inject.record import record


class Network(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.linear, self.body = nn.Linear(3, 3), body

    def forward(self, x):
        return self.body(self.linear(x))


def flow_of(body):
    network = Network(body)
    recording = record(network, *bind_examples(network, torch.randn(2, 3)))
    calls = {call.layer: call for call in recording.calls.values()}
    return Flow(recording.calls, recording.outputs), calls


def value(call):
    return ("call", call.address, 0)


def test_a_value_has_a_producer_and_an_input_has_none():
    flow, calls = flow_of(lambda x: F.relu(x))
    assert flow.producer(value(calls["relu"])) is calls["relu"]
    assert flow.producer(("input", "x")) is None
    assert flow.maker(("input", "x")) is None


def test_the_source_is_seen_through_what_leaves_values_as_they_are():
    flow, calls = flow_of(lambda x: torch.exp(F.dropout(x, 0.5, False).contiguous().float()))
    (operand,) = calls["exp"].values()
    assert flow.source(operand) == value(calls["linear"])
    assert flow.maker(operand) is calls["linear"]
    flow, calls = flow_of(lambda x: torch.exp(x.t()).t())
    (operand,) = calls["exp"].values()
    assert flow.maker(operand) is calls["t"]  # moved elsewhere: not what it was


def test_the_only_reader_is_the_one_that_computes():
    flow, calls = flow_of(lambda x: torch.exp(x.clone()))
    assert flow.only_reader(calls["linear"]) is calls["exp"]
    assert flow.only_reader(calls["exp"]) is None  # leaves the network


def test_two_readers_are_not_one():
    flow, calls = flow_of(lambda x: torch.exp(x) + x)
    assert flow.only_reader(calls["linear"]) is None
    assert flow.only_reader(calls["exp"]) is calls["add"]


def test_looking_at_a_shape_reads_nothing():
    flow, calls = flow_of(lambda x: torch.exp(x) * float(x.shape[0]))
    assert flow.only_reader(calls["linear"]) is calls["exp"]


def test_what_hands_back_its_operand_for_nobody_is_no_reader():
    def body(x):
        x.detach()
        return torch.exp(x)

    flow, calls = flow_of(body)
    assert flow.only_reader(calls["linear"]) is calls["exp"]


def test_identities_are_calls_that_keep_every_element_in_its_place():
    _, calls = flow_of(lambda x: torch.exp(x.clone().reshape(3, 2)).reshape(2, 3))
    assert [name for name, call in calls.items() if is_identity(call)] == ["clone"]


class Call:
    """What a call reads."""

    def __init__(self, *addresses):
        self.read = addresses

    def values(self):
        return [("call", address, 0) for address in self.read] or [("input", "x")]


def test_calls_of_another_way_stand_in_front_of_what_reads_them():
    # scores, softmax; then on the other way: a mask, the same negated, and the scores with that
    calls = {0: Call(), 1: Call(0, 4), 2: Call(), 3: Call(2), 4: Call(0, 3)}
    assert list(with_calls_in_order(calls, added=range(2, 5))) == [0, 2, 3, 4, 1]
    assert with_calls_in_order(calls, added=range(2, 5))[4] is calls[4]


def test_the_others_stay_in_the_order_in_which_they_were_made():
    loop = {0: Call(2), 1: Call(0), 2: Call(1), 3: Call(3), 4: Call(3)}
    assert list(with_calls_in_order(loop, added=range(3, 5))) == [0, 1, 2, 3, 4]
    assert list(with_calls_in_order(loop, added=range(5, 5))) == [0, 1, 2, 3, 4]
