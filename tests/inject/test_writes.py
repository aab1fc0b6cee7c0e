"""Writing into a part of a tensor, followed: the function is the write, and so is what a prepared network computes."""

import pytest
import torch
from torch import nn

import qat
from qat.inject import writes


@pytest.mark.parametrize(
    "index",
    [
        (slice(None), slice(1, 3)),
        (slice(None), 2),
        (slice(None), -1),
        (..., slice(None, None, 2)),
        (slice(None), slice(1, None), slice(None, 4)),
        (slice(None), 1, slice(4, 1)),
        (slice(None), slice(None, None, 2), slice(1, 5, 3)),
        (slice(1, 2), 0, ...),
        0,
        (slice(None), slice(0, 1), None, slice(2, 4)),
        ...,
    ],
)
@pytest.mark.parametrize("value", ["number", "tensor", "row"])
def test_a_write_is_the_function_of_it(index, value):
    x = torch.arange(2.0 * 3 * 6).reshape(2, 3, 6)
    expected = x.clone()
    shape = expected[index].shape
    written = {"number": 7.5, "tensor": -torch.rand(shape), "row": -torch.rand(shape[-1:])}[value]
    expected[index] = written
    assert torch.equal(writes.with_value_at(*writes.as_function((x, index, written))), expected)
    assert torch.equal(x, torch.arange(2.0 * 3 * 6).reshape(2, 3, 6))


@pytest.mark.parametrize(
    "index", [torch.arange(6).reshape(2, 3) > 2, (slice(None), torch.tensor([True, False, True])), (..., None)]
)
def test_a_mask_takes_one_number(index):
    x = torch.rand(2, 3)
    expected = x.clone()
    expected[index] = -1.0
    assert torch.equal(writes.with_value_at(*writes.as_function((x, index, -1.0))), expected)


@pytest.mark.parametrize(
    ("index", "value"),
    [
        (torch.tensor([0, 1]), 1.0),
        ((slice(None), [0, 1]), 1.0),
        (torch.rand(2, 3) > 0.5, torch.rand(2)),
        ((torch.tensor([True, False]), slice(None)), 1.0),
        (True, 1.0),
        (0, "text"),
    ],
)
def test_what_is_no_slice_and_no_mask_is_not_followed(index, value):
    assert writes.as_function((torch.rand(2, 3), index, value)) is None


def test_a_copy_broadcasts_and_takes_the_type_of_what_it_is_written_to():
    copied = writes.copied(torch.arange(3), *writes.likeness(torch.zeros(2, 3)))
    assert copied.dtype == torch.float32 and copied.tolist() == [[0.0, 1.0, 2.0]] * 2


class Between(nn.Module):
    """Two linear layers with a body between them."""

    def __init__(self, body):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.body, self.second = nn.Linear(6, 6), body, nn.Linear(6, 3)

    def forward(self, x):
        return self.second(self.body(self.first(x)))


def swap_halves(x):
    x = x.clone()
    x[:, :3] = x[:, 3:]
    return x


def swap_halves_by_joining(x):
    return torch.cat([x[:, 3:], x[:, 3:]], dim=1)


def add_to_a_part(x):
    x[:, 2:4] += 1.0
    return x


def add_to_a_part_by_joining(x):
    return torch.cat([x[:, :2], x[:, 2:4] + 1.0, x[:, 4:]], dim=1)


def fill_a_new_tensor(x):
    result = torch.zeros_like(x)
    result[:, :3] = x[:, 3:]
    result[:, 3:] = x[:, :3]
    return result


def fill_a_new_tensor_by_joining(x):
    return torch.cat([x[:, 3:], x[:, :3]], dim=1)


def fill_an_empty_tensor(x):
    result = x.new_empty(x.shape)
    result[:, ::2] = x[:, 3:]
    result[:, 1::2] = x[:, :3]
    return result


def fill_an_empty_tensor_by_joining(x):
    return torch.stack([x[:, 3:], x[:, :3]], dim=2).flatten(1)


def write_with_out(x):
    result = torch.empty_like(x)
    torch.add(x, 1.0, out=result)
    return result


@pytest.mark.parametrize(
    ("body", "like"),
    [
        (swap_halves, swap_halves_by_joining),
        (add_to_a_part, add_to_a_part_by_joining),
        (fill_a_new_tensor, fill_a_new_tensor_by_joining),
        (fill_an_empty_tensor, fill_an_empty_tensor_by_joining),
        (write_with_out, lambda x: x + 1.0),
        (lambda x: torch.zeros_like(x).copy_(x), lambda x: x),
    ],
)
def test_a_network_that_writes_computes_what_one_that_joins_does(body, like):
    networks = [Between(body), Between(like)]
    results = []
    for network in networks:
        qat.prepare(network, torch.randn(4, 6), target=None)
        torch.manual_seed(1)
        for _ in range(2):
            network(torch.randn(4, 6))
        results.append(network.eval()(torch.randn(4, 6)))
    assert torch.equal(*results)


def test_slices_that_are_written_become_integers():
    network = Between(swap_halves)
    inputs = torch.randn(4, 6)
    qat.prepare(network, inputs)
    network(inputs)
    network.eval()
    assert torch.equal(qat.convert(network)(inputs), network(inputs))
