"""Inputs of another rank, size or kind than a network was recorded with, and structures of its own."""

import dataclasses

import pytest
import torch
from torch import Tensor, nn

import qat
from qat.errors import AddressError, PreparationError


class Positions(nn.Module):
    """Token ids with learned positions, as many as there are rows."""

    def __init__(self):
        super().__init__()
        self.tokens, self.places, self.linear = nn.Embedding(10, 8), nn.Embedding(6, 8), nn.Linear(8, 3)

    def forward(self, ids, scale=None):
        x = self.tokens(ids) + self.places(torch.arange(ids.shape[1], device=ids.device))
        return self.linear(x if scale is None else x * scale)


def prepared(example):
    network = Positions()
    qat.prepare(network, example, target=None)
    return network


IDS = torch.zeros(2, 4, dtype=torch.int64)


def test_a_shorter_sequence_and_another_batch_run():
    network = prepared(IDS)
    assert network(IDS[:, :3].repeat(3, 1)).shape == (6, 3, 3)


def test_a_sequence_longer_than_the_network_takes_is_told_with_the_recorded_size():
    with pytest.raises(
        AddressError,
        match=r"fails on ids, int64 of shape \(2, 7\) \(IndexError: .*\); it was recorded with int64 of shape \(2, 4\)",
    ):
        prepared(IDS)(torch.zeros(2, 7, dtype=torch.int64))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_real_numbers_of_another_type_are_told_where_the_network_fails_on_them(dtype, training):
    network = nn.Sequential(nn.Linear(8, 3))
    handle = qat.prepare(network, torch.ones(2, 8))
    network(torch.ones(2, 8))
    handle.set_state(dataclasses.replace(handle.state, fake_quantize=False))
    with pytest.raises(AddressError, match=r"fails on input, float\d\d of shape \(2, 8\) \(RuntimeError: .*float32 of"):
        network.train(training)(torch.ones(2, 8, dtype=dtype))


def test_an_input_in_the_place_of_another_is_told():
    class Either(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(8, 3)

        def forward(self, pixels=None, features=None):
            return self.linear(features if pixels is None else pixels)

    network = Either()
    qat.prepare(network, {"pixels": torch.ones(2, 8)})
    network(torch.ones(2, 8))
    with pytest.raises(AddressError, match=r"features, float32 of shape \(2, 8\), was not there .* pass unquantized"):
        network(features=torch.ones(2, 8))


def test_a_failure_on_the_recorded_size_keeps_its_own_words():
    with pytest.raises(IndexError, match="index out of range"):
        prepared(IDS)(IDS + 10)


@pytest.mark.parametrize(
    ("ids", "scale", "words"),
    [
        (
            IDS[0],
            None,
            r"ids is int64 of shape \(4,\) and was recorded as int64 of shape \(2, 4\); pass it dense, with 2 dim",
        ),
        (
            IDS.float(),
            None,
            r"ids is float32 of shape \(2, 4\) and was recorded as int64 of shape \(2, 4\); pass it dense",
        ),
        (IDS, torch.ones(1), r"scale is float32 of shape \(1,\) and was recorded as float32 of shape \(2, 1, 1\)"),
        (
            IDS,
            torch.ones(2, 1, 1, dtype=torch.int64),
            r"scale is int64 of shape .* of real numbers as recorded, or prepare again",
        ),
    ],
)
def test_another_rank_or_kind_of_numbers_is_told_with_the_name_of_the_input(ids, scale, words):
    network = prepared((IDS, torch.ones(2, 1, 1)))
    scale = torch.ones(2, 1, 1) if scale is None else scale
    with pytest.raises(AddressError, match=words):
        network(ids, scale)


@pytest.mark.parametrize(
    "example",
    [
        torch.eye(3).to_sparse(),
        torch.ones(2, 3, dtype=torch.complex64),
        pytest.param(
            torch.ones(2, 3), marks=pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
        ),
    ],
)
def test_examples_that_are_no_dense_real_numbers_are_refused(example):
    if example.layout is torch.strided and not example.is_complex():
        example = torch.quantize_per_tensor(example, 0.1, 0, torch.quint8)
    with pytest.raises(PreparationError, match="integers need dense real tensors"):
        qat.prepare(nn.Linear(3, 3), example)


@dataclasses.dataclass
class Batch:
    """An input of two tensors and a flag."""

    values: Tensor
    weights: Tensor
    double: bool = False


@dataclasses.dataclass
class Result:
    """An output of two tensors, one of them left out."""

    scores: Tensor
    sums: Tensor
    extra: Tensor | None = None


class OnDataclasses(nn.Module):
    """Takes a dataclass and returns another."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(4, 3)

    def forward(self, batch: Batch) -> Result:
        scores = self.linear(batch.values) * batch.weights
        return Result(scores, scores + batch.weights)


def test_dataclasses_go_in_and_out():
    network = OnDataclasses()
    batch = Batch(torch.randn(4, 4), torch.rand(4, 3))
    handle = qat.prepare(network, (batch,))
    assert {"input.batch.values", "input.batch.weights"} <= set(handle.quantizers)
    network(batch)
    network.eval()
    result = network(batch)
    program = qat.convert(network)
    integers = program({"batch.values": batch.values, "batch.weights": batch.weights})
    assert [edge.name for edge in program.outputs] == ["scores", "sums"]
    assert torch.equal(integers["scores"], result.scores) and torch.equal(integers["sums"], result.sums)
