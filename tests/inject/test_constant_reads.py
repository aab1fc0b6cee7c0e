"""Numbers that code reads of tensors that depend on no input: found when a network is recorded, and answered later."""

import math

import torch
from torch import nn

import qat
from qat.inject.constant_reads import KnownReads, NotedReads, agreed
from qat.inject.record import record


class Reading(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.linear, self.body = nn.Linear(4, 4), body

    def forward(self, x):
        return self.body(self.linear(x), x.size(1))


def of_its_own(x, size):
    return x * 2 if bool((torch.ones(size, size).tril() > 0).any()) else x


def of_its_values(x, size):
    return x * 2 if bool(x.amax() < 1e9) else x


def of_one_after_the_other(x, size):
    for tensor in (torch.ones(size), x):
        x = x * 2 if bool(tensor.amax() < 1e9) else x
    return x


def of_values_and_then_its_own(x, size):
    for tensor in (x, torch.ones(size)):
        x = x * 2 if bool(tensor.amax() < 1e9) else x
    return x


def reads(body):
    return list(record(Reading(body), (torch.randn(2, 4),), {}).reads.values())


def test_a_recording_tells_reads_of_constants_from_those_of_values():
    assert reads(lambda x, size: x * size) == []
    assert reads(of_its_own) == [False]
    assert reads(of_its_values) == [True]


def test_a_place_that_reads_values_as_well_is_none_of_constants():
    assert reads(of_one_after_the_other) == [True]
    assert reads(of_values_and_then_its_own) == [True]


def test_reads_in_train_mode_alone_are_none():
    class Trained(Reading):
        def forward(self, x):
            return self.body(self.linear(x), 4) if self.training else self.linear(x)

    assert record(Trained(of_its_own), (torch.randn(2, 4),), {}).reads == {}


def test_a_forward_notes_and_is_answered_in_order():
    seen = []

    def forward(x, size):
        seen[:] = [torch.tensor([float(size), 3.0])[index].item() for index in range(2)]
        return x * 2.0

    network, x = Reading(forward), torch.randn(2, 4)
    handle = qat.prepare(network, x, target=None)
    network(x)
    network.eval()
    (site,) = handle.constant_reads
    handle.reads = NotedReads(handle.constant_reads)
    for _ in range(2):
        network(x)
        assert (seen, handle.reads.noted) == ([4.0, 3.0], {site: [4.0, 3.0]})
    handle.reads = KnownReads({site: [5.0, 6.0]})
    for _ in range(2):
        network(x)
        assert seen == [5.0, 6.0]


def test_what_is_not_known_is_read():
    answers = KnownReads({7: [1]})
    assert [answers.read(7, lambda: 2), answers.read(7, lambda: 2), answers.read(8, lambda: 3)] == [1, 2, 3]
    answers.begin()
    assert answers.read(7, lambda: 2) == 1


def test_reads_that_differ_or_are_no_numbers_are_not_agreed_on():
    first = {1: [True], 2: [3], 3: [4, 4], 4: [float("nan")], 5: [1]}
    second = {1: [True], 2: [6], 3: [4, 4, 4], 4: [math.nan * 1]}
    assert agreed(first, second) == {1: [True]}


def test_a_place_stays_where_it_is_however_often_it_has_run():
    network, x = Reading(of_its_own), torch.randn(2, 4)
    handle = qat.prepare(network, x, target=None)
    network.eval()
    handle.reads = NotedReads(handle.constant_reads)
    for _ in range(40):
        network(x)
        assert list(handle.reads.noted.values()) == [[True]]
