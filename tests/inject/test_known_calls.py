"""Which executions of one place in the code are one call: frames of small functions, and origins written by hand."""

import sys

import pytest
import torch
from torch import nn

from qat.errors import PreparationError
from qat.inject import addresses
from qat.inject.addresses import START
from qat.inject.calls import Recording
from qat.inject.known_calls import KnownCalls
from qat.inject.operations import Kind, Operation
from qat.inject.origins import LONGEST_WAY, Origin, Origins

CONV, RELU, ADD, MOVE = (
    Operation(*pair) for pair in
    [("conv2d", Kind.COMPUTE), ("relu", Kind.FUSE), ("add", Kind.COMPUTE), ("reshape", Kind.PASS)]
)  # fmt: skip

NOWHERE = Origin()


def a_place():
    return sys._getframe()


def in_the_forward(place=a_place):
    """The frame of a call that the network's forward makes."""
    return place()


addresses.mark_root(in_the_forward.__code__)


class Block(nn.Sequential):
    pass


class Finder:
    """`KnownCalls` of a small network, asked for calls of one place in the code unless a frame says otherwise."""

    def __init__(self):
        self.reach = {}
        self.recording = Recording()
        network = nn.Module()
        network.block = Block(nn.Linear(2, 2))
        self.calls = KnownCalls(network, self.recording, self.reach)
        self.origins = Origins(self.reach)

    def at(self, operation, origin=NOWHERE, *, previous=START, path="block.0", frame=None, opened=()):
        return self.calls.at(
            operation,
            operation.kind,
            frame or in_the_forward(),
            previous,
            ("", path),
            origin,
            self.origins,
            opened=opened,
        )


@pytest.fixture
def finder():
    return Finder()


def another_place():
    return sys._getframe()


def test_a_layer_is_told_apart_by_its_parameters_and_numbered(finder):
    first = finder.at(CONV, Origin(named=("a.weight",), constants=("a.weight",)))
    second = finder.at(CONV, Origin(named=("b.weight",), constants=("b.weight",)))
    again = finder.at(CONV, Origin(layer="somewhere", named=("a.weight",), constants=("a.weight",)))
    assert (first.address, first.layer) == (0, "block.0")
    assert (second.address, second.layer) == (1, "block.0#2")
    assert again is first
    assert list(finder.recording.calls) == [0, 1]


def test_what_has_no_parameters_is_told_apart_by_the_layer_before_it(finder):
    behind_a, behind_b = (finder.at(RELU, Origin(layer=f"{name}.weight", value=("call", 5, 0))) for name in "ab")
    assert behind_a is not behind_b
    assert finder.at(RELU, Origin(layer="a.weight", value=("call", 9, 0))) is behind_a


def test_what_moves_a_value_is_told_apart_by_the_value(finder):
    first = finder.at(MOVE, Origin(layer="a.weight", value=("call", 5, 0)))
    assert finder.at(MOVE, Origin(layer="b.weight", value=("call", 5, 0))) is first
    assert finder.at(MOVE, Origin(layer="a.weight", value=("call", 6, 0))) is not first


def test_constants_cut_from_one_parameter_are_told_apart_by_the_layer_before(finder):
    table = ("positions",)
    first, second = (finder.at(ADD, Origin(layer=f"{name}.weight", constants=table)) for name in "ab")
    assert first is not second
    # the parameter itself says all
    first, second = (finder.at(ADD, Origin(layer=f"{name}.weight", named=table, constants=table)) for name in "ab")
    assert first is second


def test_a_place_in_the_code_is_a_call_of_its_own(finder):
    origin = Origin(named=("a.weight",), constants=("a.weight",))
    assert finder.at(CONV, origin, frame=in_the_forward(another_place)) is not finder.at(CONV, origin)


def test_a_recorded_step_is_followed_whatever_came_before_the_operands(finder):
    call = finder.at(RELU, Origin(layer="a.weight"))
    finder.recording.transitions.add(7, addresses.site_of(in_the_forward()), call.address, call.layer)
    assert finder.at(RELU, Origin(layer="b.weight"), previous=7) is call
    assert finder.at(RELU, Origin(layer="b.weight"), previous=8) is not call
    # but not to another operation, nor to another parameter
    assert finder.at(ADD, Origin(layer="a.weight"), previous=7) is not call
    assert finder.at(RELU, Origin(layer="a.weight", named=("slope",)), previous=7) is not call


def test_calls_are_named_by_their_layer_or_by_their_operation_in_it(finder):
    of_a_layer = finder.at(CONV, path="block.0")
    of_a_block = finder.at(ADD, path="block")
    of_the_network = finder.at(ADD, path="", frame=in_the_forward(another_place))
    opened = finder.at(ADD, Origin(layer="x"), path="block.0", opened=[torch.var])
    assert [call.layer for call in (of_a_layer, of_a_block, of_the_network, opened)] == [
        "block.0", "block.add", "add", "block.0.add",
    ]  # fmt: skip
    assert of_a_layer.types == ("Linear",)
    assert of_a_block.types == ("add",)  # a rule for the block's type does not mean what it adds
    assert of_a_layer.source.startswith(f"{__file__}:")


def test_an_ambiguous_call_is_looked_at_twice_as_far_back_each_time(finder):
    call = finder.at(RELU, Origin(way=("x", "a")))
    assert finder.at(RELU, Origin(way=("y", "a"))) is call
    assert not finder.calls.look_further_back(START)
    reached = []
    while finder.calls.look_further_back(call.address):
        reached.append(*finder.reach.values())
    assert reached == [1, 2, 4, 8, 16, LONGEST_WAY]


def test_calls_part_where_the_way_behind_them_does(finder):
    call = finder.at(RELU, Origin(way=("x", "a")))
    assert finder.calls.look_further_back(call.address)  # by one call: "a"
    one = finder.at(RELU, Origin(way=("x", "a")))
    assert finder.at(RELU, Origin(way=("y", "a"))) is one
    assert finder.at(RELU, Origin(way=("x", "b"))) is not one
    assert finder.calls.look_further_back(call.address)  # by two
    assert finder.at(RELU, Origin(way=("x", "a"))) is not finder.at(RELU, Origin(way=("y", "a")))


def test_operators_with_branches_are_refused_with_their_line(finder):
    with pytest.raises(PreparationError, match=rf"torch.cond at {__file__}:\d+ goes a way that depends on the inputs"):
        finder.at(Operation("cond", Kind.COMPUTE))
    assert not finder.recording.calls


def test_a_checkpointed_call_is_noted(finder):
    def run(x):
        finder.at(RELU, frame=sys._getframe())
        return x

    assert not finder.recording.checkpointed
    x = torch.ones(1, requires_grad=True)
    torch.utils.checkpoint.checkpoint(run, x, use_reentrant=False)
    assert finder.recording.checkpointed
    with pytest.raises(PreparationError, match="reentrant activation checkpointing"):
        torch.utils.checkpoint.checkpoint(lambda y: finder.at(ADD, frame=sys._getframe()), x, use_reentrant=True)
