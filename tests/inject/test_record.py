import random

import numpy
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qat
from qat.errors import AddressError, PreparationError
from qat.inject.inputs import bind_examples
from qat.inject.operations import Kind
from qat.inject.record import record
from qat.inject.undisturbed import undisturbed


class Network(nn.Module):
    """A linear layer of its own and a body given to it."""

    def __init__(self, body):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(3, 3)
        self.body = body
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x, *rest):
        return self.body(self, self.linear(x), *rest)


def recorded(body, *inputs):
    network = Network(body)
    inputs = inputs or (torch.randn(2, 3),)
    return record(network, *bind_examples(network, inputs))


def test_calls_are_named_after_their_layer_and_know_their_line():
    recording = recorded(lambda net, x: F.relu(net.linear(x)) + x)
    assert [call.layer for call in recording.calls.values()] == ["linear", "linear#2", "relu", "add"]
    assert recording.calls[0].types == ("Linear",)
    assert recording.calls[2].types == ("relu",)
    assert all("test_record.py:" in call.source for call in recording.calls.values())


def test_values_flow_from_producers_to_consumers():
    recording = recorded(lambda net, x: F.relu(x) + x)
    linear, relu, add = recording.calls.values()
    assert list(linear.values()) == [("input", "x")]
    assert [operand.constant for operand in linear.constants()] == ["linear.weight", "linear.bias"]
    assert list(relu.values()) == [("call", 0, 0)]
    assert list(add.values()) == [("call", 1, 0), ("call", 0, 0)]
    assert recording.outputs == [("call", 2, 0)]
    assert recording.inputs == {"x": (2, 3)}


def test_moving_values_makes_no_address_of_its_own():
    recording = recorded(lambda net, x: x.reshape(-1, 3).transpose(0, 1).transpose(0, 1))
    assert recording.sequences[True] == recording.sequences[False] == (0,)
    assert [call.kind for call in recording.calls.values()] == [Kind.COMPUTE] + [Kind.PASS] * 3


def test_train_and_eval_mode_are_both_recorded():
    recording = recorded(lambda net, x: torch.sigmoid(x) if net.training else F.relu(x))
    assert [recording.calls[address].layer for address in recording.sequences[True]] == ["linear", "sigmoid"]
    assert [recording.calls[address].layer for address in recording.sequences[False]] == ["linear", "relu"]
    assert len(recording.outputs) == 2


def test_the_last_of_several_writes_is_what_is_returned():
    def body(net, x):
        x.relu_()
        x.add_(1.0)
        return x

    recording = recorded(body)
    assert recording.outputs == [("call", 2, 0)]
    assert [call.in_place for call in recording.calls.values()] == [False, True, True]


def test_integers_that_depend_on_the_inputs_carry_on():
    ids = torch.tensor([[0, 1], [2, 0]])

    class Embedded(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.linear = nn.Embedding(3, 3), nn.Linear(3, 2)

        def forward(self, ids):
            return self.linear(self.embedding(ids)) * ids.float().unsqueeze(-1)

    network = Embedded()
    calls = record(network, *bind_examples(network, ids)).calls.values()
    assert [(call.layer, call.kind, call.produces) for call in calls] == [
        ("embedding", Kind.COMPUTE, 1),
        ("linear", Kind.COMPUTE, 1),
        ("float", Kind.CAST, 1),
        ("unsqueeze", Kind.PASS, 1),
        ("mul", Kind.COMPUTE, 1),
    ]


def write_picked_places(net, x):
    x[:, torch.tensor([0, 2])] = 1.0
    return x


def write_through_a_view(net, x):
    x[:, :2].add_(1.0)
    return x


def write_under_a_view(net, x):
    first = x[:, :2]
    x.mul_(2.0)
    return first


def write_into_a_buffer(net, x):
    net.mean.add_(x.mean(0))
    return x


def write_into_a_part_of_a_buffer(net, x):
    net.mean[:2].copy_(x[0, :2])
    return x


def fill(net, x):
    x.zero_()
    return x


@pytest.mark.parametrize(
    ("body", "match"),
    [
        (write_picked_places, r"setitem in the network at .*test_record\.py:\d+ writes in place"),
        (
            write_through_a_view,
            r"test_record\.py:\d+ writes in place into memory that another tensor used later shares",
        ),
        (write_under_a_view, r"test_record\.py:\d+ writes in place into memory"),
        (write_into_a_buffer, r"add in the network at .*test_record\.py:\d+ writes in place into mean"),
        (write_into_a_part_of_a_buffer, r"copy in the network at .*test_record\.py:\d+ writes in place into mean"),
        (fill, r"zero in the network at .*test_record\.py:\d+ writes in place"),
    ],
)
def test_writes_that_cannot_be_followed_are_refused_with_their_line(body, match):
    with pytest.raises(PreparationError, match=match):
        recorded(body)


def test_a_buffer_may_count_forwards_and_is_left_as_it_was():
    def count(net, x):
        net.count += 1
        return x

    network = Network(count)
    record(network, *bind_examples(network, torch.randn(2, 3)))
    assert int(network.count) == 0


class Hidden:
    def __init__(self, values):
        self.values = values


def test_outputs_that_hide_their_tensors_are_refused():
    with pytest.raises(PreparationError, match=r"returns a Hidden, whose tensors cannot be seen.*register_dataclass"):
        recorded(lambda net, x: Hidden(x))


def test_nothing_is_disturbed():
    network = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout())
    network[1].eval()
    buffer = network[1].running_mean
    before = torch.get_rng_state(), numpy.random.get_state()[1].tolist(), random.getstate()
    with undisturbed(network):
        network.train()
        network(torch.randn(4, 3))
        numpy.random.rand()
        random.random()
        network[1].register_buffer("late", torch.ones(2))
        network[1].running_mean = torch.ones(3)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert numpy.random.get_state()[1].tolist() == before[1]
    assert random.getstate() == before[2]
    assert network[0].training and not network[1].training
    assert network[1].running_mean is buffer and buffer.tolist() == [0.0] * 3
    assert not hasattr(network[1], "late")


def test_hooks_are_gone_after_recording():
    network = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    record(network, *bind_examples(network, torch.randn(2, 3)))
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in network.modules())


class Stack(nn.Module):
    """The same lines run for each layer of a list."""

    def __init__(self, repeats=1):
        super().__init__()
        self.layers, self.repeats = nn.ModuleList(nn.Linear(3, 3) for _ in range(2)), repeats

    def forward(self, x, repeats=None):
        for _ in range(repeats or self.repeats):
            for layer in self.layers:
                x = F.relu(layer(x).flatten(1)) + x
        return x


def test_one_line_behind_each_layer_of_a_list_is_one_address_for_each_layer():
    network = Stack()
    recording = record(network, *bind_examples(network, torch.randn(2, 3)))
    names = [recording.calls[address].layer for address in recording.sequences[True]]
    assert names == ["layers.0", "relu", "add", "layers.1", "relu#2", "add#2"]


def test_a_loop_over_a_list_of_layers_comes_back_to_its_addresses():
    network = Stack(repeats=2)
    recording = record(network, *bind_examples(network, torch.randn(2, 3)))
    sequence = recording.sequences[True]
    assert sequence[6:] == sequence[:6]


def test_a_network_that_fails_on_its_examples_is_told_with_them_and_the_remedy():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
    with pytest.raises(PreparationError) as caught:
        qat.prepare(network, torch.zeros(2, 1, 5, 5, dtype=torch.uint8))
    told = str(caught.value)
    assert told.startswith(
        "Sequential.forward fails on the example inputs, uint8 of shape (2, 1, 5, 5) (RuntimeError: Input type "
    )
    assert told.endswith(
        "; pass inputs as the network gets them, in QATCallback(example_inputs=...) or qat.prepare(module, inputs)."
    )
    assert "\n" not in told and isinstance(caught.value.__cause__, RuntimeError)
    assert qat.prepare(network, torch.zeros(2, 1, 5, 5)).quantizers  # nothing was left behind


def test_every_example_is_named_and_an_error_without_words_too():
    class Refuses(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x, index):
            raise AssertionError

    with pytest.raises(
        PreparationError, match=r"float32 of shape \(2, 3\) and int64 of shape \(2,\) \(AssertionError: no"
    ):
        qat.prepare(Refuses(), (torch.zeros(2, 3), torch.zeros(2, dtype=torch.long)))


def test_what_is_refused_inside_the_forward_keeps_its_own_words():
    class Refused(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x):
            raise AddressError("its own words")

    with pytest.raises(AddressError, match="^its own words$"):
        qat.prepare(Refused(), torch.zeros(2, 3))
